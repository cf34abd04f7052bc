"""A session's comparison folded for the screen: rows of one module kind each, with one cell a layer."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sessions.decisions import decisions
from sessions.session import Session
from workbench.compare.comparison import Comparison, OutputRow, WeightRow, read_comparison
from workbench.compare.expectation import Judged
from workbench.compare.metrics import decibels
from workbench.compare.verdict import Trouble, Verdict, judge

Either = Judged[OutputRow | WeightRow]

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True)
class KindRow:
    """One kind of module (or slot of it, or weight) and what was judged of it in each layer; layer -1: outside."""

    kind: str
    slot: str
    cells: Mapping[int, tuple[Either, ...]]

    @property
    def is_trouble(self) -> bool:
        """True when it stands out in some layer."""
        return any(one.stands_out for cell in self.cells.values() for one in cell)

    def worst(self, layer: int | None = None) -> Either:
        """What has the largest excess, in one layer or in all; what stands out goes first."""
        cells = self.cells.values() if layer is None else (self.cells[layer],)
        return max((one for cell in cells for one in cell), key=lambda one: (one.stands_out, one.excess_db))


@dataclass(frozen=True)
class Judgement:
    """The comparison, its verdict, and both as rows."""

    comparison: Comparison
    verdict: Verdict
    layers: int
    outputs: tuple[KindRow, ...]
    weights: tuple[KindRow, ...]

    def trouble_of(self, judged: Either) -> Trouble | None:
        """The trouble that a row is part of."""
        return next((one for one in self.verdict.troubles if judged in (*one.outputs, *one.weights)), None)

    def weights_of(self, row: OutputRow) -> tuple[Judged[WeightRow], ...]:
        """The weights that fill a module, of a slot only its own."""
        found = [one for one in self.verdict.weights if row.module in one.row.modules]
        own = [one for one in found if row.slot and _owner(one.row.name).rpartition(".")[2] == row.slot]
        return tuple(own or found)

    def outputs_of(self, row: WeightRow) -> tuple[Judged[OutputRow], ...]:
        """The outputs of the modules that a weight fills, of a fused one only its slot."""
        found = [one for one in self.verdict.outputs if one.row.module in row.modules]
        leaf = _owner(row.name).rpartition(".")[2]
        own = [one for one in found if one.row.slot == leaf]
        return tuple(own or found)

    def residual(self) -> tuple[tuple[float, float], ...]:
        """Noise of the residual stream after each layer: measured, and where each layer adds what its format does."""
        rows = sorted((one.row for one in self.verdict.outputs if one.row.kind == "layer"), key=lambda row: row.layer)
        margin, expected = self.verdict.thresholds.format_margin, rows[0].input_noise or 0.0 if rows else 0.0
        points = []
        for row in rows:
            expected += row.roundoff + margin * row.format_noise
            points.append((row.measure.typical_noise, expected))
        return tuple(points)


def judgement_of(session: Session) -> Judgement | None:
    """Read and judge the comparison in the session's folder; None where there is none. SessionError."""
    comparison = read_comparison(session.folder)
    if comparison is None:
        return None
    wrong = frozenset(one.module for one in decisions(session) if one.is_contradiction)
    verdict = judge(comparison, contradictions=wrong)
    rows: tuple[Either, ...] = (*verdict.outputs, *verdict.weights)
    layers = 1 + max((one.row.layer for one in rows), default=-1)
    return Judgement(
        comparison=comparison,
        verdict=verdict,
        layers=layers,
        outputs=_rows(verdict.outputs, lambda row: (row.kind, row.slot if isinstance(row, OutputRow) else "")),
        weights=_rows(verdict.weights, lambda row: (_NUMBER.sub("*", row.kind), "")),
    )


def _rows(judged: Iterable[Either], key: Callable[[OutputRow | WeightRow], tuple[str, str]]) -> tuple[KindRow, ...]:
    found: dict[tuple[str, str], dict[int, list[Either]]] = defaultdict(lambda: defaultdict(list))
    for one in judged:
        found[key(one.row)][one.row.layer].append(one)
    rows = [
        KindRow(kind, slot, {layer: tuple(cell) for layer, cell in cells.items()})
        for (kind, slot), cells in found.items()
    ]
    return tuple(sorted(rows, key=lambda row: -1 in row.cells))


def grouped_layers(layers: int, most_cells: int) -> list[Sequence[int]]:
    """The layers of each cell of a line: neighbours share one where there are more layers than cells."""
    size = max(1, math.ceil(layers / most_cells))
    return [range(start, min(layers, start + size)) for start in range(0, layers, size)]


def sqnr_db(judged: Either) -> float:
    """The SQNR that was judged: that of the typical row of an output, that of the whole of a weight."""
    measure = judged.row.measure
    return decibels(measure.typical_noise if isinstance(judged.row, OutputRow) else measure.noise)


def _owner(name: str) -> str:
    return name.rpartition(".")[0]
