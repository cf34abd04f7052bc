"""Which kernels were chosen for a module, and why no others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from sessions.session import Session

_FIELDS = ("module", "op", "kernel", "refused", "where")


@dataclass(frozen=True)
class ChosenKernel:
    """What one rank chose for an operation of a module; `kernel` is "" where it composes the operation of others."""

    op: str
    kernel: str
    refused: tuple[str, ...]
    where: str
    position: int

    def __str__(self) -> str:
        return f"{self.op}: {self.kernel or 'composed of other kernels'}"


def chosen_kernels(session: Session) -> Mapping[tuple[str, int], tuple[ChosenKernel, ...]]:
    """By module and rank, in order; of several choices for one operation the last counts."""
    return session.kept("chosen kernels", lambda: _chosen(session))


def _chosen(session: Session) -> Mapping[tuple[str, int], tuple[ChosenKernel, ...]]:
    found: dict[tuple[str, int], dict[str, ChosenKernel]] = defaultdict(dict)
    for position, _, _, _, _, rank, module, op, kernel, refused, where in session.rows("kernel.chosen", _FIELDS):
        one = ChosenKernel(op or "", kernel or "", tuple(refused or ()), where or "", position)
        found[module or "", rank][one.op] = one
    return {key: tuple(chosen.values()) for key, chosen in found.items()}
