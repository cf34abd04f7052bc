"""One line with a left and a right end; the left one gives way."""

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
