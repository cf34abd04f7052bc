"""A tensor in text: name, statistics, histogram and a window of values, from what a host's control channel tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from workbench.tui.marks import spark
from workbench.tui.paint import Lines, cut, paint, said
from workbench.tui.views.view import blank
from workbench.tui.wording import bracketed, value

CELL = 10


def value_at_hand(told: Mapping[str, Any], width: int) -> Lines:
    """The tensor of the call a host is held in, in three lines."""
    shape = [int(one) for one in told.get("shape", ())]
    lines = [blank(), paint("{f|value at hand}    {m|$ $}", str(told.get("dtype", "")), bracketed(shape))]
    statistics = told.get("statistics") or {}
    if statistics:
        lines.append(cut(_statistics(statistics, ("min", "mean", "max")), width))
    histogram = [float(one) for one in told.get("histogram") or ()]
    return [*lines, *([cut(spark(histogram), width)] if any(histogram) else [])]


def tensor_lines(told: Mapping[str, Any], row: int, column: int, width: int) -> Lines:
    """Name, dtype, shape, statistics, histogram and the window, whose first element is (row, column)."""
    shape = [int(one) for one in told.get("shape", ())]
    lines = [cut(said(told.get("name") or "unnamed", "b"), width)]
    lines.append(paint("{m|$ $}", str(told.get("dtype", "")).removeprefix("torch."), bracketed(shape)))
    statistics = told.get("statistics") or {}
    if statistics:
        lines += [blank(), _statistics(statistics, ("min", "mean", "max", "absmax"))]
        lines.append(_statistics(statistics, ("nan_count", "inf_count", "zero_fraction")))
    histogram = [float(one) for one in told.get("histogram") or ()]
    if any(histogram):
        low, high = value(float(statistics.get("min", 0))), value(float(statistics.get("max", 0)))
        lines += [blank(), paint("{f|$} $ {f|$}", low, spark(histogram), high)]
    window = told.get("window") or []
    lines.append(blank())
    if not window:
        return [*lines, said("no values to show", "m")]
    heads = "".join(str(column + n).rjust(CELL) for n in range(len(window[0])))
    lines.append(said(" " * 8 + heads, "f"))
    for n, values in enumerate(window):
        line = said(f"{row + n:>7,} ", "f").copy()
        for one in values:
            line.append_text(_element(one))
        lines.append(cut(line, width))
    return lines


def _statistics(statistics: Mapping[str, Any], names: tuple[str, ...]) -> Text:
    line = Text(no_wrap=True, end="")
    for name in names:
        if name in statistics and statistics[name] is not None:
            given = statistics[name]
            shown = value(float(given)) if isinstance(given, (int, float)) else given
            line.append_text(paint("{m|$} $  ", name.replace("_count", "").replace("_fraction", "s"), shown))
    return line


def _element(one: object) -> Text:
    if isinstance(one, (int, float)):
        return said(value(float(one)).rjust(CELL), "t" if one else "f")
    return said(str(one).rjust(CELL), "e")
