"""What the precision screen draws: the residual stream over the layers, and all that is known of one module."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.text import Text

from sessions.decisions import DecisionView
from workbench.compare.comparison import OutputRow, WeightRow
from workbench.compare.metrics import decibels
from workbench.tui.judgement import Either, Judgement, sqnr_db
from workbench.tui.marks import line
from workbench.tui.paint import Lines, cut, ends, paint, said, wrapped
from workbench.tui.plots import Scale, braille, half_blocks, heat, heat_level
from workbench.tui.views.view import blank
from workbench.tui.wording import dtype, leaf, some, value

EXCESS_STEPS = (1.0, 3.0, 6.0, 10.0, 24.0, 48.0)
PLOT_ROWS = 5
MOST_WEIGHTS = 4
BRAILLE = 0x2800
_LEGEND = (0, 1, 3, 6, 10, 24, 48)
_FAULTS = {
    "checkpoint": ("checkpoint", "the weight on disk is not what its format makes of the reference's"),
    "decision": ("decision", "the weights on disk agree; it was not built as they are stored"),
    "load": ("load or kernel", "the weights on disk agree, and it was built as they are stored"),
}


def decibel_text(number: float) -> str:
    """`31.0 dB`, `exact`, or `–` for no number."""
    if number == math.inf:
        return "exact"
    return f"{number:.1f} dB" if math.isfinite(number) else "–"


def residual_plot(judgement: Judgement, width: int) -> Lines:
    """SQNR of the residual stream after each layer in braille, measured over expected; [] without layers."""
    points = judgement.residual()
    shown = [[min(150.0, decibels(noise)) for noise in series] for series in zip(*points, strict=True)]
    if not shown:
        return []
    measured, expected = shown
    low, high = min(*measured, *expected), max(*measured, *expected)
    room, scale = max(10, width - 6), Scale(low, high if high > low else low + 1)
    role = "w" if judgement.verdict.troubles else "t"
    grey = braille(expected, room, PLOT_ROWS, scale)
    over = braille(measured, room, PLOT_ROWS, scale)
    legend = paint("{m|— expected}  {" + role + "|— measured}")
    labels = {0: scale.high, PLOT_ROWS // 2: (scale.high + scale.low) / 2, PLOT_ROWS - 1: scale.low}
    lines = [ends(said("residual stream, SQNR in dB", "f"), legend, width)]
    for number, (below, above) in enumerate(zip(grey, over, strict=True)):
        label = f"{labels[number]:4.0f}  " if number in labels else " " * 6
        lines.append(Text.assemble(said(label, "m"), _overlaid(below, above, role)))
    axis = ends(said("      layer 0", "f"), said(str(len(points) - 1), "f"), width)
    return [*lines, axis, blank(), _headline(judgement, width)]


def _overlaid(below: Text, above: Text, role: str) -> Text:
    text = line()
    for lower, upper in zip(below.plain, above.plain, strict=True):
        dots = (ord(lower) - BRAILLE) | (ord(upper) - BRAILLE)
        text.append(chr(BRAILLE + dots), role if ord(upper) > BRAILLE else "m")
    return text


def _headline(judgement: Judgement, width: int) -> Text:
    first, troubles = judgement.verdict.first, judgement.verdict.troubles
    if first is None:
        return cut(said("alike: nothing stands out", "m"), width)
    more = f", then {some(len(troubles) - 1, 'more', 'more')}" if len(troubles) > 1 else ""
    return cut(paint("{e|✗ first $}{m|$}", first.name.removeprefix("model."), more), width)


def detail_of(judgement: Judgement, judged: Either, decisions: Sequence[DecisionView], width: int) -> Lines:
    """Verdict and numbers first, then where in the tensor, then whose fault and what was decided."""
    row, trouble = judged.row, judgement.trouble_of(judged)
    is_first = trouble is not None and trouble is judgement.verdict.first
    where = f"layer {row.layer} of {judgement.layers}" if row.layer >= 0 else "outside the layers"
    rank = "first excess · " if is_first else "excess · " if trouble is not None else ""
    lines = [said(rank + where, "f"), cut(said(_title(row), "b"), width, keeps_end=True)]
    if judged.why:
        lines += wrapped(f"✗ {judged.why}", width, "e")
    lines += [blank(), *_table(judgement, judged), *_other_metrics(judged)]
    if isinstance(row, OutputRow):
        lines += _input_lines(row)
        lines += _where(judged, row, width)
    if trouble is not None:
        name, says = _FAULTS[trouble.fault]
        lines += [blank(), said("whose fault", "f"), said(name, "E"), *wrapped(says, width, "m")]
    return [*lines, *_decided(row, decisions)]


def _title(row: OutputRow | WeightRow) -> str:
    if isinstance(row, WeightRow):
        return row.name
    name = row.module.removeprefix("model.") or "the model's result"
    return f"{name} · {row.slot}" if row.slot else name


def _table(judgement: Judgement, judged: Either) -> Lines:
    """Weights and outputs side by side: expected, measured, excess; the row itself is not dimmed."""
    row = judged.row
    outputs = (judged,) if isinstance(row, OutputRow) else judgement.outputs_of(row)
    weights = judgement.weights_of(row) if isinstance(row, OutputRow) else (judged,)
    lines = [paint("{f|SQNR            expected measured  excess}")]
    shown = sorted(weights, key=lambda one: (not one.stands_out, -one.excess_db))[:MOST_WEIGHTS]
    lines += [_numbers("weight" if len(weights) == 1 else _part(one), one) for one in shown]
    if len(weights) > len(shown):
        lines.append(said(f"of {some(len(weights), 'weight')}, the worst", "f"))
    if not weights and judgement.comparison.is_same_checkpoint:
        lines.append(said("weight          same on disk", "m"))
    return lines + [_numbers("output" if len(outputs) == 1 else f"output {_slot(one)}", one) for one in outputs]


def _numbers(label: str, one: Either) -> Text:
    role = "e" if one.stands_out else "t"
    excess = f"+{one.excess_db:.1f}" if 0.05 < one.excess_db < math.inf else ""
    told = decibel_text(sqnr_db(one))
    wanted = decibel_text(one.expected_db) if math.isfinite(one.expected_noise) else "–"
    return paint(
        "{m|$}$ {" + role + "|$ $}",
        cut(said(label), 15).plain.ljust(16),
        wanted.rjust(8),
        told.rjust(8),
        excess.rjust(7),
    )


def _part(one: Either) -> str:
    return leaf(one.row.name.rpartition(".")[0])[1] if isinstance(one.row, WeightRow) else ""


def _slot(one: Either) -> str:
    return one.row.slot if isinstance(one.row, OutputRow) else ""


def _other_metrics(judged: Either) -> Lines:
    said_ = judged.row.measure
    cosine = "–" if said_.cosine is None else f"{said_.cosine:.6f}"
    first = paint("{m|cosine} $   {m|relative error} $", cosine, value(said_.relative_error))
    return [first, paint("{m|max abs error} $ {m|of} $", value(said_.max_abs_error), value(said_.reference_absmax))]


def _input_lines(row: OutputRow) -> Lines:
    lines: Lines = []
    if row.input_noise is not None:
        lines.append(paint("{m|its input} $", decibel_text(decibels(row.input_noise))))
    if row.recomputed_noise is not None:
        told = decibel_text(decibels(row.recomputed_noise))
        lines.append(paint("{m|beside input × weight on disk} $", told))
    return lines


def _where(judged: Either, row: OutputRow, width: int) -> Lines:
    if not row.grid or row.measure.is_exact:
        return []
    shape = " × ".join(str(size) for size in row.shape[1:])
    expected = judged.expected_db if math.isfinite(judged.expected_db) else decibels(row.roundoff)
    levels = [
        [0 if cell is None else heat_level(expected - cell, EXCESS_STEPS) for cell in cells[: max(1, width - 2)]]
        for cells in row.grid
    ]
    head = paint("{f|where in the output}   $", f"{row.shape[0]} tokens × {shape}")
    legend = Text.assemble("  ", heat(range(7), 4))
    steps = said("  " + "".join(str(step).ljust(4) for step in _LEGEND) + "dB excess", "f")
    return [blank(), head, *(Text.assemble("  ", one) for one in half_blocks(levels)), legend, cut(steps, width)]


def _decided(row: OutputRow | WeightRow, decisions: Sequence[DecisionView]) -> Lines:
    modules = (row.module,) if isinstance(row, OutputRow) else row.modules
    found = next((one for one in decisions if one.module in modules), None)
    if found is None:
        return []
    role = "e" if found.is_contradiction else "t"
    built = dtype(found.built) or "?"
    return [blank(), paint("{m|header} $   {m|built} {" + role + "|$}", dtype(found.header_dtype) or "?", built)]
