"""A pane of painted lines that scrolls; the detail beside the list, and whole pages."""

from __future__ import annotations

from typing import Any

from rich.text import Text
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from workbench.tui.paint import Lines, cut
from workbench.tui.widgets.canvas import strip_of


class Pane(ScrollView, can_focus=True):
    """Lines as they are, cut to the width; scrolls when it has the focus."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.lines: Lines = []

    def put(self, lines: Lines, *, keeps_scroll: bool = False) -> None:
        """Show these lines from the top."""
        self.lines = lines
        self.virtual_size = Size(self.content_size.width, len(lines))
        if not keeps_scroll:
            self.scroll_to(y=0, animate=False, force=True, immediate=True)
        self.refresh()

    @property
    def room(self) -> int:
        """Cells of text in a line."""
        return max(1, self.content_size.width)

    def render_line(self, y: int) -> Strip:
        """Line `y` of what is in view."""
        at = int(self.scroll_offset.y) + y
        line = self.lines[at] if at < len(self.lines) else Text()
        return strip_of(self, cut(line, self.room), self.room)

    def scroll_rows(self, by: int) -> None:
        """Move the view by so many lines."""
        self.scroll_to(y=self.scroll_offset.y + by, animate=False, force=True, immediate=True)
