"""One line with a left and a right end, or two; the left ends give way."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from workbench.tui.paint import Lines, ends
from workbench.tui.widgets.canvas import Canvas


class Ends(Canvas):
    """Header, step bar and key line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._left, self._right = Text(), Text()

    def put(self, left: Text, right: Text | None = None) -> None:
        """Show these two ends."""
        self._left, self._right = left, right or Text()
        self.refresh()

    def paint_lines(self, width: int) -> Lines:
        """Both ends in `width` cells."""
        return [ends(self._left, self._right, width)]


class StepBar(Ends):
    """The step bar, and below it the line of the ranks where there are several."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._below: tuple[Text, Text] | None = None

    def put(self, left: Text, right: Text | None = None, below: tuple[Text, Text] | None = None) -> None:
        """Show these two ends, and those of the line below; None for no such line."""
        self._below = below
        self.styles.height = 1 if below is None else 2
        super().put(left, right)

    def paint_lines(self, width: int) -> Lines:
        """One or two lines in `width` cells."""
        below = [] if self._below is None else [ends(*self._below, width)]
        return [*super().paint_lines(width), *below]
