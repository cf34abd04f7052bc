"""The whole session in one line, the same on every screen: density, findings, and where `now` is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from rich.text import Text
from textual import events

from workbench.tui.marks import EIGHTHS, line
from workbench.tui.messages import SpineClicked
from workbench.tui.paint import Lines
from workbench.tui.widgets.canvas import Canvas


@dataclass(frozen=True)
class SpineFacts:
    """What a spine shows: density 0 to 1, stages and findings as fractions of the session, and `now`.

    `extent` is how much of the width is recorded yet.
    """

    density: tuple[float, ...] = ()
    stages: tuple[tuple[float, str], ...] = ()
    marks: tuple[tuple[float, str], ...] = ()
    now: float = 1.0
    extent: float = 1.0


class Spine(Canvas):
    """One line of density and, where there is room, one of stage names."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.facts = SpineFacts()

    def put(self, facts: SpineFacts) -> None:
        """Show these facts."""
        self.facts = facts
        self.refresh()

    def paint_lines(self, width: int) -> Lines:
        """Density left of `now` lighter, right of it darker; a stage's name starts where the stage does."""
        return [spine(self.facts, width), stage_names(self.facts.stages, width)]

    def on_click(self, event: events.Click) -> None:
        """A click jumps."""
        self.post_message(SpineClicked(min(1.0, max(0.0, event.x / max(1, self.size.width - 1)))))


def spine(facts: SpineFacts, width: int) -> Text:
    """The density, which is logarithmic already, so that one event stays visible beside ten thousand."""
    heights = _heights(facts.density, width)
    here = round(facts.now * (width - 1))
    marked = {round(at * (width - 1)): role for at, role in facts.marks}
    text = line()
    for x, height in enumerate(heights):
        if x == here:
            text.append("┃", "a")
            continue
        role = marked.get(x, "m" if x < here else "d") if height or x in marked else "d"
        text.append(EIGHTHS[max(1, height)], role)
    return text


def _heights(density: Sequence[float], width: int) -> list[int]:
    if not density:
        return [0] * width
    edges = [x * len(density) / width for x in range(width + 1)]
    values = [max(density[int(a) : max(int(a) + 1, math.ceil(b))]) for a, b in pairwise(edges)]
    return [round(2 + 5 * value) if value > 0 else 0 for value in values]


def stage_names(stages: Sequence[tuple[float, str]], width: int) -> Text:
    """Names at their places; one that would touch the name before it moves right, one without room is left out."""
    cells, free_from = [" "] * width, 0
    for at, name in stages:
        x = max(free_from, min(round(at * (width - 1)), width - len(name)))
        if x + len(name) <= width:
            cells[x : x + len(name)] = name
            free_from = x + len(name) + 1
    return Text("".join(cells)[:width], "f", no_wrap=True, end="")
