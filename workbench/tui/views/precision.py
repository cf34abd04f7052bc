"""Is it right: a comparison as module kinds by layers, and how far each is from what was expected."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from rich.text import Text

from workbench.compare.comparison import OutputRow
from workbench.compare.metrics import Measure
from workbench.tui.judgement import Either, Judgement, KindRow, grouped_layers, sqnr_db
from workbench.tui.keymap import hint
from workbench.tui.lens import Lens, Place
from workbench.tui.marks import line
from workbench.tui.paint import Lines, paint, said, wrapped
from workbench.tui.plots import heat_level
from workbench.tui.views.agreement import EXCESS_STEPS, decibel_text, detail_of, residual_plot
from workbench.tui.views.view import Leads, Reading, View, blank
from workbench.tui.widgets.longlist import Column
from workbench.tui.wording import value

MOST_CELLS = 36
WIDEST_CELL = 4
_SQNR_STEPS = (-60.0, -45.0, -30.0, -20.0, -10.0, 0.0)
_COSINE_STEPS = (1e-7, 1e-5, 1e-3, 1e-2, 0.1, 0.5)
_ERROR_STEPS = (1e-5, 1e-3, 1e-2, 0.05, 0.2, 1.0)


class Precision(View):
    """One row a module kind, one cell a layer; `← →` choose the layer, `v` weights or activations, `o` the metric."""

    hints = (
        hint("list.down list.up", "module"),
        hint("fold unfold", "layer"),
        hint("order", "metric"),
        hint("variant", "weights or activations"),
        hint("trouble"),
        hint("follow", "decision"),
        hint("help"),
    )
    orders = ("excess over what was expected", "SQNR", "cosine similarity", "max abs error")
    variants = ("activations", "weights")

    def __init__(self, reading: Reading, lens: Lens) -> None:
        super().__init__(reading, lens)
        self.judgement = reading.snapshot.judgement
        self.groups: list[Sequence[int]] = []
        self.total = 0
        if self.judgement is not None:
            self._fill(self.judgement)

    def _fill(self, judgement: Judgement) -> None:
        rows = judgement.weights if self.lens.variant % 2 else judgement.outputs
        self.total = len(rows)
        needle = self.lens.filter.strip("*\"' ").lower()
        kept = [row for row in rows if needle in f"{row.kind} {row.slot}".lower()]
        self.rows = self.trouble_only(kept, lambda row: row.is_trouble)
        self.groups = grouped_layers(judgement.layers, MOST_CELLS)
        self.cell_width = max(1, min(WIDEST_CELL, MOST_CELLS // max(1, len(self.groups))))
        self.columns = (
            Column("module", keeps_end=True),
            Column(self._axis(), max(8, len(self.groups) * self.cell_width)),
            Column("worst", 7, is_right=True),
        )

    def _axis(self) -> str:
        text, step = "", max(1, 8 // self.cell_width)
        for number in range(0, len(self.groups), step):
            text = text.ljust(number * self.cell_width) + str(self.groups[number][0])
        return text

    def start(self) -> int:
        """The module that stands out first, else the one that comes nearest to it."""
        first = self.judgement.verdict.first if self.judgement is not None else None
        wanted = (*first.outputs, *first.weights) if first is not None else ()
        loudest = max(range(len(self.rows)), key=lambda n: self.rows[n].worst().excess_db, default=0)
        return next((n for n, row in enumerate(self.rows) if any(one in wanted for one in _all(row))), loudest)

    def layer(self, row: KindRow) -> int:
        """The layer that is chosen: the one asked for, else the one where the row is worst."""
        if self.lens.column is not None and self.lens.column in row.cells:
            return self.lens.column
        first = self.judgement.verdict.first if self.judgement is not None else None
        if first is not None and any(one in (*first.outputs, *first.weights) for one in row.cells.get(first.layer, ())):
            return first.layer
        return row.worst().row.layer

    def beside(self, row: KindRow, by: int) -> int | None:
        """The next layer that has such a module; the first and the last stay."""
        layers = sorted(row.cells)
        at = layers.index(self.layer(row)) + by
        return layers[max(0, min(len(layers) - 1, at))]

    def cells(self, row: KindRow, width: int) -> Sequence[Text]:
        """Name, one heat cell a layer, and the worst of them as a number."""
        leaf = row.kind.removesuffix(".weight").rpartition(".")[2] if not row.slot else row.kind.rpartition(".")[2]
        front = row.kind.removesuffix(".weight").removesuffix(leaf)
        role = "E" if row.is_trouble else "t"
        name = Text.assemble(
            said(front if width > 24 else "", "f"), said(leaf, role), said(f" {row.slot}" if row.slot else "", role)
        )
        return (
            name,
            self._heat(row),
            said(self._number(max(_all(row), key=self._badness)), "e" if row.is_trouble else "m"),
        )

    def _heat(self, row: KindRow) -> Text:
        text, chosen = line(), self.layer(row) if self.lens.column is not None else None
        if set(row.cells) == {-1}:
            return text
        for group in self.groups:
            found = [row.worst(layer) for layer in group if layer in row.cells]
            if not found:
                text.append(" " * self.cell_width)
                continue
            level = max(self._level(one) for one in found)
            glyph = "▏" if chosen in group else "█"
            text.append(glyph + "█" * (self.cell_width - 1), f"h{level}/h{level}" if glyph == "█" else f"a/h{level}")
        return text

    def _level(self, judged: Either) -> int:
        measure, order = judged.row.measure, self.lens.order % len(self.orders)
        if measure.odd:
            return 6
        if order == 0:
            level = heat_level(judged.excess_db, EXCESS_STEPS)
            return max(level, 5) if judged.stands_out else min(level, 3)
        if order == 1:
            return heat_level(-sqnr_db(judged), _SQNR_STEPS)
        return heat_level(_distance(measure, order), _COSINE_STEPS if order == 2 else _ERROR_STEPS)

    def _badness(self, judged: Either) -> float:
        """What the chosen metric calls worse is larger."""
        measure, order = judged.row.measure, self.lens.order % len(self.orders)
        if measure.odd:
            return math.inf
        return (judged.excess_db, -sqnr_db(judged), _distance(measure, 2), measure.max_abs_error)[order]

    def _number(self, judged: Either) -> str:
        measure, order = judged.row.measure, self.lens.order % len(self.orders)
        if measure.odd:
            return "NaN"
        if order == 0:
            return "·" if judged.excess_db < 0.05 else f"+{judged.excess_db:.1f}"
        if order == 1:
            return decibel_text(sqnr_db(judged)).removesuffix(" dB")
        if order == 2:
            return "–" if measure.cosine is None else f"{measure.cosine:.4f}"
        return value(measure.max_abs_error)

    def identity(self, row: KindRow) -> Hashable:
        """Kind and slot."""
        return (row.kind, row.slot)

    def text(self, row: KindRow) -> str:
        """Kind and slot."""
        return f"{row.kind} {row.slot}"

    def follow(self, row: KindRow) -> Leads:
        """The decision about the module, where one was recorded."""
        judged = row.worst(self.layer(row)).row
        modules = (judged.module,) if isinstance(judged, OutputRow) else judged.modules
        found = [one.module for one in self.reading.snapshot.decisions if one.module in modules]
        return Place("decisions", row=found[0]) if found else None

    def above(self, width: int) -> Lines:
        """The residual stream, measured and as it grows in the median layer."""
        return residual_plot(self.judgement, width) if self.judgement is not None else []

    def detail(self, row: KindRow, width: int) -> Lines:
        """Expected and measured of weight and output, where in the tensor, whose fault."""
        if self.judgement is None:
            return []
        judged = row.worst(self.layer(row))
        lines = detail_of(self.judgement, judged, self.reading.snapshot.decisions, width)
        return [*lines, blank(), self.reading.keys((hint("fold unfold", "layer"), hint("follow", "decision")))]

    def empty(self, width: int) -> Lines:
        """What would be here, why it is not, and what answers part of it."""
        if self.judgement is not None:
            hidden = self.nothing_matches(self.total, "modules")
            return hidden or [
                paint("{m|These are the same checkpoint: its weights are not compared. }{k|v} {m|activations}")
            ]
        level = self.reading.snapshot.manifest.level
        why = "Precision compares two sessions, a reference and a candidate, value by value. This is one session alone"
        more = f", recorded at level {level}." if level else "."
        wrong = sum(one.is_contradiction for one in self.reading.snapshot.decisions)
        modules = len({one.module for one in self.reading.snapshot.decisions if one.is_contradiction})
        lines = [*wrapped(why + more, min(width, 66)), paint("{b|loadscope compare REFERENCE CANDIDATE}"), blank()]
        if wrong:
            says = f"{modules} modules were built in another precision than the checkpoint holds."
            lines += [*wrapped(says, min(width, 66)), paint("{k|d} {m|shows which, and why}")]
        else:
            says = "No module was built in another precision than the checkpoint holds, as far as the headers say."
            lines += [*wrapped(says, min(width, 66), "m"), paint("{k|d} {m|shows the decisions}")]
        return [said("is it right", "f"), blank(), *lines]


def _all(row: KindRow) -> list[Either]:
    return [one for cell in row.cells.values() for one in cell]


def _distance(measure: Measure, order: int) -> float:
    if order == 2:
        return 1.0 if measure.cosine is None and measure.noise else 1 - (measure.cosine or 1.0)
    return measure.max_abs_error / measure.reference_absmax if measure.reference_absmax else math.copysign(0, 1)
