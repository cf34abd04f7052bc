"""Which implementation of an operation a load uses; a kind of kernels is a folder beside this file."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

REFERENCE = "reference"
KINDS = tuple(sorted(path.parent.name for path in Path(__file__).parent.glob("*/__init__.py")))


def kernel(op: str, kinds: str | Sequence[str]) -> Callable[..., Any]:
    """The function `op` of the first of `kinds` that has a file `kernels/<kind>/<op>.py`, at last of the reference."""
    return _kernel(op, (kinds,) if isinstance(kinds, str) else tuple(kinds))


def alternative(op: str, kinds: Sequence[str]) -> Callable[..., Any] | None:
    """The function `op` of the first of `kinds` that has one besides the reference, or None."""
    is_reference = _module_of(op, tuple(kinds)) == f"{__package__}.{REFERENCE}.{op}"
    return None if is_reference else kernel(op, kinds)


@cache
def _module_of(op: str, kinds: tuple[str, ...]) -> str:
    names = [f"{__package__}.{kind}.{op}" for kind in (*kinds, REFERENCE)]
    return next((name for name in names if importlib.util.find_spec(name) is not None), names[-1])


def _kernel(op: str, kinds: tuple[str, ...]) -> Callable[..., Any]:
    # The module is looked up in each call: a test reloads one to decorate its kernels anew.
    chosen: Callable[..., Any] = getattr(importlib.import_module(_module_of(op, kinds)), op)
    return chosen


def kinds_on(device: str, preferred: Sequence[str], wanted: str | None = None) -> tuple[str, ...]:
    """The kinds a load on torch's `device` takes its kernels from, in order, the reference last.

    `preferred` are the device's own, of which those that cannot run here are left out. `wanted` is the one that was
    asked for instead; raises KernelError where it cannot run.
    """
    if wanted is not None:
        require_runnable(wanted, device)
        return tuple(dict.fromkeys((wanted, REFERENCE)))
    runnable = [kind for kind in preferred if kind in KINDS and why_not(kind, device) is None]
    return (*runnable, REFERENCE)


def why_not(kind: str, device: str) -> str | None:
    """Why kernels of `kind` cannot run on torch's `device`, in words, or None if they can."""
    reason: str | None = importlib.import_module(f"{__package__}.{kind}").why_not(device)
    return reason


def require_runnable(kind: str, device: str) -> None:
    """Raise KernelError where kernels of `kind` cannot run on torch's `device`."""
    importlib.import_module(f"{__package__}.{kind}").require_runnable(device)
