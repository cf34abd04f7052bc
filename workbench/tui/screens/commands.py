"""The palette: every action with its key, found by typing a part of its word."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from workbench.tui.keymap import KEYS, Key, Keymap
from workbench.tui.paint import said
from workbench.tui.widgets.ends import Ends
from workbench.tui.widgets.longlist import Column, LongList

COLUMNS = (Column("key", 10), Column("action", 18), Column("what it does"))


class CommandsScreen(ModalScreen[str | None]):
    """Dismisses with the id of the chosen action, None when it is closed."""

    BINDINGS = [
        Binding("escape", "close", id="commands.close", priority=True),
        Binding("down,ctrl+n", "move(1)", id="commands.down", priority=True),
        Binding("up,ctrl+p", "move(-1)", id="commands.up", priority=True),
        Binding("pagedown", "move(10)", id="commands.page_down", priority=True),
        Binding("pageup", "move(-10)", id="commands.page_up", priority=True),
    ]

    def __init__(self, keymap: Keymap) -> None:
        super().__init__()
        self.keymap = keymap
        self.found: Sequence[Key] = ()

    def compose(self) -> ComposeResult:
        """A line to type in, the actions below it."""
        with Vertical(id="commands"):
            yield Input(id="commands-input", placeholder="a part of a command")
            yield LongList(id="commands-list")
            yield Ends(id="commands-keys")

    def on_mount(self) -> None:
        """All actions."""
        self.query_one("#commands-list", LongList).can_focus = False
        self.query_one("#commands-input", Input).focus()
        keys = self.keymap.line(())
        keys.append_text(said("Enter does it   Esc closes   ↓ ↑ choose", "m"))
        self.query_one("#commands-keys", Ends).put(keys)
        self._show("")

    def on_input_changed(self, event: Input.Changed) -> None:
        """Fewer actions."""
        event.stop()
        self._show(event.value)

    def _show(self, text: str) -> None:
        words = text.lower().split()
        commands = [one for one in KEYS if one.scope == "screen" and one.id != "commands"]
        self.found = [one for one in commands if all(word in f"{one.word} {one.help} {one.id}" for word in words)]
        self.query_one("#commands-list", LongList).put(COLUMNS, self.found, self._cells, 0, centre=False)

    def _cells(self, key: Key, _width: int) -> Sequence[Text]:
        return (said(self.keymap.key(key.id).shown, "k"), said(key.word, "t"), said(key.help, "m"))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Do the chosen one."""
        event.stop()
        at = self.query_one("#commands-list", LongList).cursor
        self.dismiss(self.found[at].id if self.found else None)

    def action_close(self) -> None:
        """Do nothing."""
        self.dismiss(None)

    def action_move(self, by: int) -> None:
        """Another action."""
        self.query_one("#commands-list", LongList).action_move(by)
