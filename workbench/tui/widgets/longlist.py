"""A list over any number of rows: only the visible lines are ever asked for or painted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text
from textual import events
from textual.binding import Binding
from textual.cache import LRUCache
from textual.geometry import Size
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from workbench.tui.keymap import LIST_BINDINGS
from workbench.tui.messages import Chosen, Moved
from workbench.tui.paint import cut, padded
from workbench.tui.widgets.canvas import strip_of

FAR = 1 << 40
_PAINTED = 512


@dataclass(frozen=True)
class Column:
    """One column: `width` 0 takes what is left; `keeps_end` cuts a name in front, after `shrinks` cells of indent."""

    title: str
    width: int = 0
    is_right: bool = False
    keeps_end: bool = False
    shrinks: int = 0


Cells = Callable[[Any, int], Sequence[Text]]


def _no_cells(_row: object, _width: int) -> Sequence[Text]:
    return ()


class LongList(ScrollView, can_focus=True):
    """Line 0 is the head; the selected row is painted over its whole width."""

    BINDINGS = [Binding(**one) for one in LIST_BINDINGS]
    cursor: reactive[int] = reactive(0)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.columns: Sequence[Column] = ()
        self.rows: Sequence[Any] = ()
        self.cells: Cells = _no_cells
        self._strips: LRUCache[tuple[int, bool], Strip] = LRUCache(_PAINTED)

    def put(self, columns: Sequence[Column], rows: Sequence[Any], cells: Cells, cursor: int, *, centre: bool) -> None:
        """Show other rows with the cursor on one of them; `centre` brings it to the middle of the view."""
        self.columns, self.rows, self.cells = columns, rows, cells
        self._strips.clear()
        self.virtual_size = Size(self.size.width, len(rows) + 1)
        self.set_reactive(LongList.cursor, max(0, min(len(rows) - 1, cursor)))
        # Scrolling at once would still use the old size.
        self.call_after_refresh(self._reveal, centre=centre)
        self.refresh()

    def repaint(self) -> None:
        """Paint everything anew, after a change of colours or of a row's facts."""
        self._strips.clear()
        self.refresh()

    def on_resize(self, _event: events.Resize) -> None:
        """Widths are counted anew."""
        self._strips.clear()
        self.virtual_size = Size(self.size.width, len(self.rows) + 1)
        self.call_after_refresh(self._reveal)

    def widths(self) -> list[int]:
        """The width of each column in cells."""
        fixed = sum(one.width for one in self.columns) + 2 * (len(self.columns) - 1) + 2
        return [one.width or max(8, self.size.width - fixed) for one in self.columns]

    def _line(self, cells: Sequence[Text], gutter: str) -> Text:
        line = Text(gutter + " ", no_wrap=True, end="")
        line.stylize("a", 0, 1)
        for number, (cell, width, column) in enumerate(zip(cells, self.widths(), self.columns, strict=False)):
            line.append("  " if number else "")
            fitted = cut(cell, width, keeps_end=column.keeps_end, shrinks=column.shrinks)
            line.append_text(padded(fitted, width, is_right=column.is_right))
        return line

    def render_line(self, y: int) -> Strip:
        """The head, or the row at line `y` of the view."""
        width = self.size.width
        if not self.columns:
            return Strip.blank(width, self.rich_style)
        if y == 0:
            return strip_of(self, self._line([Text(one.title, "f") for one in self.columns], " "), width)
        index = int(self.scroll_offset.y) + y - 1
        if index >= len(self.rows):
            return Strip.blank(width, self.rich_style)
        return self._row(index, width)

    def _row(self, index: int, width: int) -> Strip:
        is_selected = index == self.cursor
        if (strip := self._strips.get((index, is_selected))) is None:
            line = self._line(self.cells(self.rows[index], self.widths()[0]), "▌" if is_selected else " ")
            strip = strip_of(self, line, width, "selected" if is_selected else "")
            self._strips[index, is_selected] = strip
        return strip

    def _reveal(self, *, centre: bool = False) -> None:
        top, height = int(self.scroll_offset.y), max(1, self.size.height - 1)
        if centre and not top <= self.cursor < top + height:
            target = max(0, self.cursor - height // 2)
        elif self.cursor < top:
            target = self.cursor
        elif self.cursor >= top + height:
            target = self.cursor - height + 1
        else:
            return
        self.scroll_to(y=target, animate=False, force=True, immediate=True)

    def watch_cursor(self) -> None:
        """Bring the row into view and say so."""
        self._reveal()
        self.refresh()
        self.post_message(Moved(self.cursor))

    def action_move(self, by: int) -> None:
        """Another row, by so many."""
        self.cursor = max(0, min(len(self.rows) - 1, self.cursor + by))

    def action_page(self, direction: int) -> None:
        """One page less a line, so that the eye finds its place."""
        self.action_move(direction * max(1, self.size.height - 2))

    def on_click(self, event: events.Click) -> None:
        """A click selects, a second one follows."""
        row = int(self.scroll_offset.y) + event.y - 1
        if event.y and row < len(self.rows):
            self.cursor = row
            if event.chain > 1:
                self.post_message(Chosen(row))
