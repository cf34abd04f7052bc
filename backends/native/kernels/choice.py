"""Which implementation of an operation a load uses, and why no other; a kind of kernels is a folder beside this."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

REFERENCE = "reference"
KINDS = tuple(sorted(path.parent.name for path in Path(__file__).parent.glob("*/__init__.py")))


class Kinds(tuple[str, ...]):  # noqa: SLOT001 - a tuple has no slots for the reasons
    """The kinds a load takes its kernels from, in order; `left_out` says of the others why it does not."""

    left_out: Mapping[str, str]

    @classmethod
    def of(cls, names: Sequence[str], left_out: Mapping[str, str]) -> Kinds:
        """`names` in order of preference, and the reason for each other kind."""
        made = cls(names)
        made.left_out = left_out
        return made


@dataclass(frozen=True)
class Choice:
    """The kind that `module` takes its `op` from, and the others as "kind: reason"; "" where it needs none."""

    op: str
    module: str
    kind: str
    refused: tuple[str, ...]

    def function(self) -> Callable[..., Any]:
        """The kernel. Its file is looked up in each call: a test reloads one to decorate its kernels anew."""
        chosen: Callable[..., Any] = getattr(importlib.import_module(f"{__package__}.{self.kind}.{self.op}"), self.op)
        return chosen


def kernel(op: str, kinds: str | Sequence[str], module: str = "") -> Callable[..., Any]:
    """The function `op` of the first of `kinds` that has a file `kernels/<kind>/<op>.py`, at last of the reference.

    `module` is the full name of the layer that will call it.
    """
    return choose(op, (kinds,) if isinstance(kinds, str) else kinds, module).function()


def alternative(op: str, kinds: Sequence[str], module: str = "") -> Callable[..., Any] | None:
    """The function `op` of the first of `kinds` that has one besides the reference, or None."""
    chosen = choose(op, kinds, module, is_reference_wanted=False)
    return chosen.function() if chosen.kind else None


def choose(op: str, kinds: Sequence[str], module: str = "", *, is_reference_wanted: bool = True) -> Choice:
    """Choose the kind for one operation of one layer; the one place where a load does.

    Without the reference nothing may be chosen: then the layer composes the operation of others.
    """
    first = next(kind for kind in (*kinds, REFERENCE) if kind == REFERENCE or _has(kind, op))
    chosen = first if is_reference_wanted or first != REFERENCE else ""
    refused = tuple(f"{kind}: {reason}" for kind, reason in _refused(op, kinds, chosen))
    return Choice(op, module, chosen, refused)


def _refused(op: str, kinds: Sequence[str], chosen: str) -> Iterator[tuple[str, str]]:
    left_out = kinds.left_out if isinstance(kinds, Kinds) else {}
    for kind in KINDS:
        if kind == chosen:
            continue
        if kind == REFERENCE:
            yield kind, f"{chosen} comes before it" if chosen else "the layer composes this of its other kernels"
        elif not _has(kind, op):
            yield kind, f"it has no {op}"
        elif kind in kinds:
            yield kind, f"{chosen} comes before it"
        else:
            yield kind, left_out.get(kind, "this load was not given it")


@cache
def _has(kind: str, op: str) -> bool:
    return importlib.util.find_spec(f"{__package__}.{kind}.{op}") is not None


def kinds_on(device: str, preferred: Sequence[str], wanted: str | None = None) -> Kinds:
    """The kinds a load on torch's `device` takes its kernels from, in order, the reference last.

    `preferred` are the device's own, of which those that cannot run here are left out. `wanted` is the one that was
    asked for instead; raises KernelError where it cannot run.
    """
    if wanted is not None:
        require_runnable(wanted, device)
        asked = tuple(dict.fromkeys((wanted, REFERENCE)))
        return Kinds.of(asked, {kind: f"{wanted} was asked for" for kind in KINDS if kind not in asked})
    reasons = {kind: why_not(kind, device) for kind in KINDS if kind != REFERENCE}
    runnable = [kind for kind in preferred if kind in reasons and reasons[kind] is None]
    unwanted = f"it can run on {device}, which does not prefer it"
    left_out = {kind: reason or unwanted for kind, reason in reasons.items() if kind not in runnable}
    return Kinds.of((*runnable, REFERENCE), left_out)


def why_not(kind: str, device: str) -> str | None:
    """Why kernels of `kind` cannot run on torch's `device`, in words, or None if they can."""
    reason: str | None = importlib.import_module(f"{__package__}.{kind}").why_not(device)
    return reason


def require_runnable(kind: str, device: str) -> None:
    """Raise KernelError where kernels of `kind` cannot run on torch's `device`."""
    importlib.import_module(f"{__package__}.{kind}").require_runnable(device)
