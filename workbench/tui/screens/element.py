"""The tensor at hand of a paused host: shape, dtype, statistics, histogram, and a window of values that scrolls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import Screen

from workbench.tui.controlling import Controlling
from workbench.tui.keymap import Keymap
from workbench.tui.paint import Lines, paint, said, wrapped
from workbench.tui.tensors import CELL, tensor_lines
from workbench.tui.views.view import blank
from workbench.tui.widgets.ends import Ends
from workbench.tui.widgets.pane import Pane

ROWS, COLUMNS = 20, 10


class ElementScreen(Screen[None]):
    """Asks the host through its control channel; what has not come yet shows as `…`."""

    BINDINGS = [
        Binding("escape,q", "close", id="element.close"),
        Binding("j,down", "move(1, 0)", id="element.down"),
        Binding("k,up", "move(-1, 0)", id="element.up"),
        Binding("l,right", "move(0, 1)", id="element.right"),
        Binding("h,left", "move(0, -1)", id="element.left"),
        Binding("ctrl+d,pagedown", f"move({ROWS}, 0)", id="element.page_down"),
        Binding("ctrl+u,pageup", f"move({-ROWS}, 0)", id="element.page_up"),
        Binding("g,home", "first", id="element.first"),
        Binding("v,tab", "switch", id="element.switch"),
        Binding("i", "recorded", id="element.recorded"),
    ]

    def __init__(self, controlling: Controlling, keymap: Keymap) -> None:
        super().__init__()
        self.controlling, self.keymap = controlling, keymap
        self.what, self.row, self.column = "source", 0, 0
        self.told: Mapping[str, Any] = {}
        self.problem = ""

    def compose(self) -> ComposeResult:
        """Title, pane, keys."""
        yield Ends(id="page-top")
        yield Pane(id="page")
        yield Ends(id="page-keys")

    def on_mount(self) -> None:
        """Ask for the source first."""
        keys = paint(
            "{k|Esc} back  {k|j k} row  {k|← →} column  {k|^d ^u} page  {k|v} source or parameter  {k|i} recorded"
        )
        self.query_one("#page-keys", Ends).put(keys)
        self.query_one("#page", Pane).focus()
        self._ask()

    def _ask(self) -> None:
        rows, columns = max(1, self.size.height - 14), max(1, (self.size.width - 14) // CELL)
        what, row, column = self.what, self.row, self.column
        self.controlling.ask(
            lambda control: control.inspect(what, row=row, column=column, rows=rows, columns=columns), self._answered
        )
        self._draw()

    def _answered(self, answer: object) -> None:
        self.app.call_from_thread(self._take, answer)

    def _take(self, answer: object) -> None:
        if isinstance(answer, Mapping):
            self.told, self.problem = answer, ""
        else:
            self.told, self.problem = {}, str(answer)
        self._draw()

    def _draw(self) -> None:
        if not self.is_mounted:
            return
        self.query_one("#page-top", Ends).put(
            paint("{A|◆} {b|tensor at hand}  {m|$}", self.what), said(self._place(), "m")
        )
        self.query_one("#page", Pane).put(self._lines(max(40, self.size.width - 6)), keeps_scroll=True)

    def _place(self) -> str:
        return f"row {self.row:,}  column {self.column:,}"

    def _lines(self, width: int) -> Lines:
        if self.problem:
            return [blank(), *wrapped(f"✗ {self.problem}", width, "e"), said("i shows what was recorded", "m")]
        if not self.told:
            return [blank(), said("…", "m")]
        return tensor_lines(self.told, self.row, self.column, width)

    def _shape(self) -> tuple[int, int]:
        shape = [int(one) for one in self.told.get("shape", ())] or [1]
        rows = 1
        for one in shape[:-1]:
            rows *= one
        return rows, shape[-1]

    def action_move(self, down: int, right: int) -> None:
        """Scroll the window inside the tensor."""
        rows, columns = self._shape()
        self.row = max(0, min(rows - 1, self.row + down))
        self.column = max(0, min(columns - 1, self.column + right))
        self._ask()

    def action_first(self) -> None:
        """Back to the first element."""
        self.row = self.column = 0
        self._ask()

    def action_switch(self) -> None:
        """The other side of the call: the checkpoint's tensor or the parameter."""
        self.what = "parameter" if self.what == "source" else "source"
        self.action_first()

    def action_close(self) -> None:
        """Back to the screen below."""
        self.dismiss(None)

    def action_recorded(self) -> None:
        """What was recorded about the event instead."""
        from workbench.tui.actions.pages import recorded
        from workbench.tui.screens.session import SessionScreen

        below = next((one for one in reversed(self.app.screen_stack) if isinstance(one, SessionScreen)), None)
        self.dismiss(None)
        if below is not None:
            recorded(below)
