"""The form of four lines with which a load begins: checkpoint, engine, tp, level."""

from __future__ import annotations

from pathlib import Path

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from inspectors.probe.stages import LEVELS
from workbench.tui.launching import Wanted
from workbench.tui.paint import paint
from workbench.tui.widgets.ends import Ends

FIELDS = (("checkpoint", "", "a folder"), ("engine", "native", ""), ("tp", "1", "1 to 64"), ("level", "ledger", ""))
MOST_TP = 64


class FormScreen(ModalScreen["Wanted | None"]):
    """Dismisses with what was asked for; a line that cannot be used says so."""

    BINDINGS = [
        Binding("escape", "close", id="form.close", priority=True),
        Binding("down,tab", "next(1)", id="form.down", priority=True),
        Binding("up,shift+tab", "next(-1)", id="form.up", priority=True),
        Binding("ctrl+b", "paused", id="form.paused", priority=True),
    ]

    def compose(self) -> ComposeResult:
        """Four lines and a key line."""
        with Vertical(id="form"):
            yield Ends(id="form-title")
            for name, given, hint in FIELDS:
                with Horizontal(classes="field"):
                    yield Static(name, classes="label", markup=False)
                    yield Input(given, placeholder=hint, id=f"form-{name}", select_on_focus=False)
            yield Ends(id="form-told")
            yield Ends(id="form-keys")

    def on_mount(self) -> None:
        """Begin with the checkpoint."""
        self.query_one("#form-title", Ends).put(paint("{b|load a checkpoint}"))
        self.query_one("#form-keys", Ends).put(
            paint("{k|Enter} start  {k|^b} start paused  {k|↓ ↑} line  {k|Esc} close")
        )
        self.query_one("#form-checkpoint", Input).focus()

    def _given(self, name: str) -> str:
        return self.query_one(f"#form-{name}", Input).value.strip()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Start it."""
        event.stop()
        self._start(is_paused=False)

    def action_paused(self) -> None:
        """Start it paused at the first call."""
        self._start(is_paused=True)

    def _start(self, *, is_paused: bool) -> None:
        problem = self._problem()
        if problem:
            self.query_one("#form-told", Ends).put(paint("{w|$}", problem))
            return
        model = str(Path(self._given("checkpoint")).expanduser().absolute())
        self.dismiss(Wanted(model, self._given("engine"), int(self._given("tp")), self._given("level"), is_paused))

    def _problem(self) -> str:
        checkpoint = self._given("checkpoint")
        if not checkpoint or not Path(checkpoint).expanduser().exists():
            return f"no such folder or file: {checkpoint!r}"
        if not self._given("engine"):
            return "name an engine, such as native"
        tp = self._given("tp")
        if not tp.isdigit() or not 1 <= int(tp) <= MOST_TP:
            return f"tp is a number from 1 to {MOST_TP}, not {tp!r}"
        if self._given("level") not in LEVELS:
            return f"level is one of {', '.join(LEVELS)}"
        return ""

    def action_next(self, by: int) -> None:
        """The next line."""
        names = [f"form-{name}" for name, _, _ in FIELDS]
        here = self.focused.id if self.focused is not None and self.focused.id in names else names[0]
        self.query_one(f"#{names[(names.index(str(here)) + by) % len(names)]}", Input).focus()

    def action_close(self) -> None:
        """Start nothing."""
        self.dismiss(None)
