"""Watches the operations inside one loader call for cuts of the checkpoint tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inspectors.probe.dispatch import only_writes
from inspectors.probe.splits import Cut, cuts, is_cut
from inspectors.probe.tensors import is_tensor
from inspectors.probe.views import identity_of


class SplitWatch:
    """Level `calls`: notices cuts of the loaded tensor, its views and its copies."""

    def __init__(self, tensor: Any, on_cut: Callable[[Cut], None]) -> None:
        self._on_cut = on_cut
        self._lineage = {identity_of(tensor)} - {0}

    @staticmethod
    def concerns(func: Any) -> bool:
        """Whether `saw` has anything to note about calls of this operator: cuts, and what makes new memory."""
        return is_cut(func) or (not func.is_view and not only_writes(func))

    def saw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """One operation ran."""
        is_of_lineage = bool(args) and self._is_of_lineage(args[0])
        if not func.is_view:
            made = {identity_of(one) for one in tensors_in(out)} - {0}
            self._lineage = self._lineage | made if is_of_lineage else self._lineage - made  # memory is used again
        if is_of_lineage:
            for cut in cuts(func, args, kwargs, out):
                self._on_cut(cut)

    def saw_inside(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """One operation ran in a call inside this one."""
        SplitWatch.saw(self, func, args, kwargs, out)

    def raised(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """One operation raised, and may have done a part of its work."""

    def ended(self) -> None:
        """The call is over."""

    def _is_of_lineage(self, value: Any) -> bool:
        if isinstance(value, (list, tuple)):
            return any(self._is_of_lineage(one) for one in value)
        return is_tensor(value) and identity_of(value) in self._lineage


def tensors_in(value: Any) -> list[Any]:
    """The tensors in a value, in lists, tuples and dictionaries."""
    if isinstance(value, (list, tuple)):
        return [one for part in value for one in tensors_in(part)]
    if isinstance(value, dict):
        return [one for part in value.values() for one in tensors_in(part)]
    return [value] if is_tensor(value) else []
