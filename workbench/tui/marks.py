"""Small graphics out of characters: sparkline, coverage, meter with a stop, ruler, lanes; numbers in, one line out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.text import Text

EIGHTHS = " ▁▂▃▄▅▆▇█"
COVERAGE = {"1": ("━", "m"), "2": ("═", "w"), "0": ("╌", "e"), "?": ("┄", "f"), "!": ("━", "w"), ".": (" ", "f")}
LANES = {"d": ("•", "f"), "h": ("◉", "a"), "w": ("○", "f"), "x": ("✗", "e"), "-": ("·", "d")}
WORST_COVERAGE = "0!2?.1"
WORST_LANE = "xhwd-"
MOST_LANES = 8


def line() -> Text:
    """An empty line to append to."""
    return Text(no_wrap=True, end="")


def spark(values: Sequence[float], top: float | None = None, role: str = "m") -> Text:
    """One bar a value, 0 blank, anything above 0 at least the lowest bar; `top` is the value of a full cell."""
    top = top or max(values, default=0) or 1
    bars = (EIGHTHS[min(8, max(1 if v > 0 else 0, round(v / top * 8)))] for v in values)
    return Text("".join(bars), role, no_wrap=True, end="")


def coverage(cells: str) -> Text:
    """One character a cell: 1 written once, 2 twice, 0 never, ! wrong source, ? unknown, `.` nothing there yet."""
    text = line()
    for cell in cells:
        text.append(*COVERAGE[cell])
    return text


def worst(cells: Sequence[str], order: str = WORST_COVERAGE) -> str:
    """Several coverage lines of one length as one: each cell the worst of its column."""
    return "".join(min(column, key=order.index) for column in zip(*cells, strict=True))


def lanes(states: str) -> Text:
    """One character a rank: d done, h here, w not yet, x failed, - not concerned; above eight ranks, groups of them."""
    if len(states) > MOST_LANES:
        states = _grouped(states, MOST_LANES)
    text = line()
    for state in states:
        text.append(*LANES[state])
    return text


def _grouped(states: str, groups: int) -> str:
    edges = [round(n * len(states) / groups) for n in range(groups + 1)]
    return "".join(min(states[a:b], key=WORST_LANE.index) for a, b in pairwise(edges))


def meter(fraction: float, width: int, role: str = "m", limit: float | None = None) -> Text:
    """A line filled to `fraction` of `width` cells; `limit`, a fraction too, is a stop that the line may pass."""
    text, filled = line(), fraction * width
    stop = None if limit is None else min(width - 1, int(limit * width))
    for cell in range(width):
        if limit is not None and cell == stop:
            text.append("┃", "t" if fraction > limit else "d")
        elif cell + 1 <= filled + 1e-9:
            text.append("━", "e" if stop is not None and cell > stop else role)
        elif cell + 0.5 <= filled:
            text.append("╸", role)
        else:
            text.append("─", "g")
    return text


@dataclass(frozen=True)
class Taken:
    """A stretch of a ruler, as fractions of the whole, in a role."""

    start: float
    end: float
    role: str = "m"


def ruler(width: int, taken: Sequence[Taken]) -> Text:
    """A line of a whole thing with the taken stretches raised; a stretch too short for a cell still shows as one."""
    cells = [("─", "d")] * width
    for one in taken:
        first = min(width - 1, int(one.start * width + 1e-6))
        last = max(first + 1, round(one.end * width))
        cells[first:last] = [("█", one.role)] * (min(last, width) - first)
    text = line()
    for glyph, role in cells:
        text.append(glyph, role)
    return text


def share(part: float, whole: float, width: int, role: str = "m") -> Text:
    """A meter of `part` in `whole`, empty when there is no whole."""
    return meter(part / whole if whole else 0.0, width, role)
