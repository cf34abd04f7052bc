"""What stands out by itself in a comparison, what follows from it, and whose fault it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from workbench.compare.comparison import Comparison, OutputRow, WeightRow
from workbench.compare.expectation import DEFAULT, Judged, Thresholds, judged_outputs, judged_weight

Fault = Literal["checkpoint", "decision", "load"]


@dataclass(frozen=True)
class Trouble:
    """One thing that stands out by itself: the output, the weights that explain it, and whose fault that makes it.

    `fault` is "checkpoint" where weights on disk differ, "decision" where they are alike but the module was not built
    as the checkpoint stores it, "load" where only the load or a kernel is left.
    """

    module: str
    slots: tuple[str, ...]
    layer: int
    outputs: tuple[Judged[OutputRow], ...]
    weights: tuple[Judged[WeightRow], ...]
    fault: Fault
    follows: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The module, with its slots in brackets."""
        return f"{self.module}[{','.join(self.slots)}]" if self.slots else self.module

    @property
    def worst(self) -> Judged[OutputRow | WeightRow]:
        """Its row with the largest excess."""
        rows: tuple[Judged[OutputRow | WeightRow], ...] = (*self.outputs, *self.weights)
        return max(rows, key=lambda one: one.excess_db)


@dataclass(frozen=True)
class Verdict:
    """All rows judged, and the troubles: first the one that comes first in the forward pass."""

    outputs: tuple[Judged[OutputRow], ...]
    weights: tuple[Judged[WeightRow], ...]
    troubles: tuple[Trouble, ...]
    thresholds: Thresholds

    @property
    def first(self) -> Trouble | None:
        """The first module that stands out."""
        return self.troubles[0] if self.troubles else None


def judge(comparison: Comparison, thresholds: Thresholds = DEFAULT, contradictions: Collection[str] = ()) -> Verdict:
    """Judge every row and name what stands out by itself.

    `contradictions` are modules that were built otherwise than the checkpoint stores them.
    """
    outputs = judged_outputs(comparison.outputs, thresholds)
    weights = tuple(judged_weight(row, order, thresholds) for order, row in enumerate(comparison.weights))
    return Verdict(outputs, weights, _troubles(outputs, weights, contradictions), thresholds)


# --- what is behind what


def _troubles(
    outputs: Sequence[Judged[OutputRow]], weights: Sequence[Judged[WeightRow]], contradictions: Collection[str]
) -> tuple[Trouble, ...]:
    """Modules in the order of the pass; one that holds another, or is held by none of them, follows from it."""
    odd_outputs, odd_weights = _by_module(outputs), _weights_by_module(weights)
    order = _order(outputs)
    names = sorted({*odd_outputs, *odd_weights}, key=lambda name: order.get(name, len(order)))
    roots = [name for name in names if not any(other != name and _holds(name, other) for other in names)]
    return tuple(
        _trouble(
            name,
            odd_outputs.get(name, ()),
            odd_weights.get(name, ()),
            follows=[other for other in names if _holds(other, name)],
            is_contradiction=name in contradictions,
        )
        for name in roots
    )


def _by_module(outputs: Sequence[Judged[OutputRow]]) -> Mapping[str, tuple[Judged[OutputRow], ...]]:
    found: dict[str, list[Judged[OutputRow]]] = defaultdict(list)
    for one in outputs:
        if one.stands_out:
            found[one.row.module].append(one)
    return {name: tuple(rows) for name, rows in found.items()}


def _weights_by_module(weights: Sequence[Judged[WeightRow]]) -> Mapping[str, tuple[Judged[WeightRow], ...]]:
    found: dict[str, list[Judged[WeightRow]]] = defaultdict(list)
    for one in weights:
        if one.stands_out:
            for module in one.row.modules or (one.row.name.rpartition(".")[0],):
                found[module].append(one)
    return {name: tuple(rows) for name, rows in found.items()}


def _order(outputs: Sequence[Judged[OutputRow]]) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for one in outputs:
        found.setdefault(one.row.module, one.order)
    return found


def _holds(outer: str, inner: str) -> bool:
    return outer != inner and (not outer or inner.startswith(f"{outer}."))


def _trouble(
    name: str,
    outputs: Sequence[Judged[OutputRow]],
    weights: Sequence[Judged[WeightRow]],
    *,
    follows: Sequence[str],
    is_contradiction: bool,
) -> Trouble:
    rows = [one.row for one in outputs]
    sources = [one.row for one in weights]
    slots = [row.slot for row in rows if row.slot] or _leaves(sources, name)
    layer = rows[0].layer if rows else sources[0].layer
    fault: Fault = "checkpoint" if weights else "decision" if is_contradiction else "load"
    return Trouble(name, tuple(slots), layer, tuple(outputs), tuple(weights), fault, tuple(follows))


def _leaves(rows: Sequence[WeightRow], module: str) -> list[str]:
    """Which parts of a module on disk weights belong to, where these have other names than the module."""
    parts = dict.fromkeys(row.name.rpartition(".")[0] for row in rows)
    return [
        part.removeprefix(f"{module}.") if part.startswith(module) else part.rpartition(".")[2]
        for part in parts
        if part != module
    ]
