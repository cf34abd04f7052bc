"""One line to type in, in place of the key line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Input, Static

Asked = Callable[[str], None]


class Prompt(Horizontal):
    """Hidden until it asks; the screen shows it by the class `-asking`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._asked: Asked | None = None

    def compose(self) -> ComposeResult:
        """A label and a line."""
        yield Static(id="prompt-label", markup=False)
        yield Input(id="prompt-input", select_on_focus=False)

    @property
    def is_asking(self) -> bool:
        """True while a line is being typed."""
        return self._asked is not None

    def ask(self, label: str, value: str, then: Asked) -> None:
        """Ask for one line; `then` is called with it when Enter is pressed."""
        self._asked = then
        self.query_one("#prompt-label", Static).update(f"{label} ")
        self.screen.add_class("-asking")
        line = self.query_one("#prompt-input", Input)
        line.value = value
        line.cursor_position = len(value)
        line.focus()

    def close(self) -> Asked | None:
        """Stop asking; returns who asked."""
        then, self._asked = self._asked, None
        self.screen.remove_class("-asking")
        listed = self.screen.query_one("#list")
        # A list without rows is not displayed and takes no focus; the keys must not go on into the hidden line.
        # Later, as `focus` above is done later too: keys typed fast must not leave the line with the focus.
        self.app.call_later(self.screen.set_focus, listed if listed.display else None)
        return then

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """The line is given."""
        event.stop()
        then = self.close()
        if then is not None:
            then(event.value)
