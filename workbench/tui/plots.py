"""Larger graphics out of characters: braille lines and areas, heat cells, half blocks, icicles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from workbench.tui.marks import line
from workbench.tui.paint import Lines
from workbench.tui.palette import HEAT_GLYPHS, HEAT_LEVELS

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


@dataclass(frozen=True)
class Scale:
    """The values at the lower and upper edge of a plot."""

    low: float
    high: float

    def dot(self, value: float, dots: int) -> int:
        """The row of dots, 0 at the top, on which a value lies; values outside lie on the edge."""
        span = (self.high - self.low) or 1.0
        inside = min(self.high, max(self.low, value))
        return round((1 - (inside - self.low) / span) * (dots - 1))


def braille(values: Sequence[float], width: int, height: int, scale: Scale, *, is_filled: bool = False) -> Lines:
    """A line, or an area, of `width` × `height` cells, each two by four dots; values are spread over the width."""
    grid = [[0] * width for _ in range(height)]
    last: int | None = None
    for x in range(width * 2 if values else 0):
        y = scale.dot(values[min(len(values) - 1, int(x * len(values) / (width * 2)))], height * 4)
        near = y if last is None else last
        dots = range(y, height * 4) if is_filled else range(min(y, near), max(y, near) + 1)
        for dot in dots:
            grid[dot // 4][x // 2] |= _DOTS[x % 2][dot % 4]
        last = y
    return [Text("".join(chr(0x2800 + cell) for cell in row), "m", no_wrap=True, end="") for row in grid]


def heat(levels: Sequence[int | None], cell_width: int = 1) -> Text:
    """Heat cells of levels 0 to 6; the glyph carries the level where there is no colour, None is blank."""
    text = line()
    for level in levels:
        if level is None:
            text.append(" " * cell_width)
        else:
            text.append(HEAT_GLYPHS[level] * cell_width, f"h{level}/h{level}")
    return text


def heat_level(value: float, steps: Sequence[float]) -> int:
    """How many of the ascending `steps` a value has passed, at most 6."""
    return min(HEAT_LEVELS - 1, sum(value >= step for step in steps))


def half_blocks(matrix: Sequence[Sequence[int]]) -> Lines:
    """A matrix of heat levels, two rows a line; an odd last row stands alone on the lowest level."""
    lines: Lines = []
    for at in range(0, len(matrix), 2):
        upper = matrix[at]
        lower = matrix[at + 1] if at + 1 < len(matrix) else [0] * len(upper)
        text = line()
        for a, b in zip(upper, lower, strict=True):
            text.append("▀", f"h{a}/h{b}")
        lines.append(text)
    return lines


@dataclass(frozen=True)
class Box:
    """One box of an icicle, as fractions of the whole width."""

    start: float
    end: float
    label: str
    role: str = "T"


def icicle(rows: Sequence[Sequence[Box]], width: int) -> Lines:
    """Rows of boxes from coarse to fine, parted by one dark column."""
    lines: Lines = []
    for row in rows:
        text, at = line(), 0
        for box in row:
            first = max(at, round(box.start * width))
            room = max(first + 1, round(box.end * width)) - first - 1
            text.append(" " * (first - at))
            text.append(f" {box.label}"[:room].ljust(room) if room > 3 else " " * room, box.role)
            text.append(" ")
            at = first + room + 1
        lines.append(text)
    return lines
