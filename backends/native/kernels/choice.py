"""Which implementation of an operation a load uses; a kind of kernels is a folder beside this file."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

KINDS = tuple(sorted(path.parent.name for path in Path(__file__).parent.glob("*/__init__.py")))


def kernel(op: str, kind: str) -> Callable[..., Any]:
    """The function `op` of `kernels/<kind>/<op>.py`, or the reference where that kind has no such file."""
    name = f"{__package__}.{kind}.{op}"
    if importlib.util.find_spec(name) is None:
        name = f"{__package__}.reference.{op}"
    chosen: Callable[..., Any] = getattr(importlib.import_module(name), op)
    return chosen


def require_runnable(kind: str, device: str) -> None:
    """Raise KernelError where kernels of `kind` cannot run on `device`."""
    importlib.import_module(f"{__package__}.{kind}").require_runnable(device)
