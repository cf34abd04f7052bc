"""The tensor at hand of a paused host: shape, dtype, statistics, histogram, and a window of values that scrolls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import Screen

from workbench.tui.controlling import Controlling
from workbench.tui.keymap import Keymap
from workbench.tui.marks import spark
from workbench.tui.paint import Lines, cut, paint, said, wrapped
from workbench.tui.views.view import blank
from workbench.tui.widgets.ends import Ends
from workbench.tui.widgets.pane import Pane
from workbench.tui.wording import bracketed, value

CELL = 10
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
