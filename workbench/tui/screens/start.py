"""The start: continue with a session, try a scenario, or begin a load of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.screen import Screen

from workbench.tui.keymap import Keymap
from workbench.tui.launching import Launcher, Wanted
from workbench.tui.lens import Place
from workbench.tui.messages import Chosen, Moved
from workbench.tui.paint import Lines, cut, paint, said, wrapped
from workbench.tui.recent import Recent, recent
from workbench.tui.screens.form import FormScreen
from workbench.tui.screens.session import SessionScreen
from workbench.tui.startside import about_session
from workbench.tui.views.view import blank
from workbench.tui.widgets.ends import Ends
from workbench.tui.widgets.longlist import Column, LongList
from workbench.tui.widgets.pane import Pane
from workbench.tui.wording import age

STATES = {
    "ok": ("✓", "m"),
    "failed": ("✗", "e"),
    "killed": ("✗", "e"),
    "interrupted": ("▲", "w"),
    "running": ("●", "a"),
    "unknown": ("▲", "w"),
}
MOST_RECENT, MOST_SCENARIOS = 8, 12


@dataclass(frozen=True)
class Row:
    """A line of the list: a heading, a session, a scenario, or something to begin."""

    kind: str
    title: str = ""
    told: str = ""
    session: Recent | None = None


class StartScreen(Screen[None]):
    """One list in three parts; the side says what the selected line is."""

    BINDINGS = [
        Binding("q,escape", "leave", id="start.leave"),
        Binding("enter", "open('')", id="start.open"),
        Binding("o", "form", id="start.form"),
        Binding("b", "paused", id="start.paused"),
        Binding("r", "reload", id="start.reload"),
        Binding("a", "all", id="start.all"),
        *(
            Binding(key, f"open('{look}')", id=f"start.{look}")
            for key, look in (("t", "timeline"), ("p", "parameters"), ("d", "decisions"), ("K", "Kernels"))
        ),
        *(Binding(key, f"open('{look}')", id=f"start.{look}") for key, look in (("f", "findings"), ("l", "log"))),
    ]
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-normal")]

    def __init__(
        self,
        folder: Path,
        scenarios: Sequence[tuple[str, str]] = (),
        launcher: Launcher | None = None,
        keymap: Keymap | None = None,
    ) -> None:
        super().__init__()
        self.folder, self.scenarios, self.launcher = folder, scenarios, launcher
        self.keymap = keymap or Keymap()
        self.rows: list[Row] = []
        self._shows_all = False

    def compose(self) -> ComposeResult:
        """Brand, list and side, keys."""
        yield Pane(id="brand")
        with Horizontal(id="start-body"):
            with Vertical(id="start-left"):
                yield LongList(id="start-list")
            yield Pane(id="start-side")
        yield Ends(id="start-keys")

    def on_mount(self) -> None:
        """Read the folder and show it."""
        brand = self.query_one("#brand", Pane)
        brand.can_focus = False
        brand.put([paint("{A|◆} {b|loadscope}"), paint("{m|  which bytes became which weights, and why}")])
        self.query_one("#start-side", Pane).can_focus = False
        self.query_one("#start-list", LongList).focus()
        self.action_reload()

    def on_screen_resume(self) -> None:
        """Back from a session: its outcome may be another."""
        if self.is_mounted and self.rows:
            self.action_reload()

    def action_reload(self) -> None:
        """Read the folder again; the cursor stays on its line."""
        listed = self.query_one("#start-list", LongList)
        was = self.rows[listed.cursor] if self.rows else None
        self.rows = self._made()
        same = (n for n, row in enumerate(self.rows) if was and (row.kind, row.title) == (was.kind, was.title))
        first = next((n for n, row in enumerate(self.rows) if row.kind not in {"heading", "blank"}), 0)
        listed.put((Column("", 0),), self.rows, self._cells, next(same, first), centre=False)
        # The side has no width before the first layout.
        self.call_after_refresh(self._show_side)
        self._keys()

    def _made(self) -> list[Row]:
        found = recent(self.folder)
        shown = found if self._shows_all else found[:MOST_RECENT]
        rows = [Row("heading", "recent sessions", "" if found else "none yet in this folder"), Row("blank")]
        rows += [Row("session", one.path.name, session=one) for one in shown]
        if len(found) > len(shown):
            rows.append(Row("more", f"{len(found) - len(shown)} more", "a shows all"))
        if self.scenarios:
            rows += [
                Row("blank"),
                Row("heading", "scenarios", "a planted defect, a tiny checkpoint, seconds"),
                Row("blank"),
            ]
            rows += [Row("scenario", name, told) for name, told in self.scenarios[:MOST_SCENARIOS]]
        rows += [Row("blank"), Row("heading", "begin"), Row("blank")]
        return [*rows, Row("begin", "load a checkpoint", "checkpoint, engine, tp, level")]

    def _cells(self, row: Row, width: int) -> Sequence[Text]:
        if row.kind == "heading":
            return (paint("{f|$}  {m|$}", row.title, row.told),)
        if row.session is not None:
            return (self._session(row.session, width),)
        if row.kind == "scenario":
            return (cut(paint("  $ {m|$}", row.title.ljust(25), row.told), width),)
        if row.kind == "begin":
            return (paint("  {k|o}  $ {m|$}", row.title.ljust(22), row.told),)
        return (paint("  {m|$}  {f|$}", row.title, row.told),)

    def _session(self, one: Recent, width: int) -> Text:
        glyph, role = STATES.get(one.state, ("•", "m"))
        facts = one.manifest
        ago = "unreadable" if one.problem else age(one.age_seconds(datetime.now(timezone.utc)))
        when = "live" if one.state == "running" else ago
        room = max(12, width - 40)
        name = cut(said(facts.name or one.path.name, "t"), room)
        line = paint("{" + role + "|$} $", glyph, name)
        line.append(" " * max(1, room - name.cell_len + 1))
        line.append_text(said(" ".join(facts.format.split()[:2])[:12], "m"))
        line.append(" " * max(1, room + 16 - line.cell_len))
        size = f"tp {facts.tp}" if facts.engine else ""
        line.append_text(paint("{m|$}  {m|$}  {m|$}", size.ljust(5), cut(said(facts.engine), 9).plain.ljust(9), when))
        return line

    def on_moved(self, message: Moved) -> None:
        """Headings are stepped over; the side follows."""
        listed = self.query_one("#start-list", LongList)
        at = message.row
        if self.rows and self.rows[at].kind in {"heading", "blank", "more"}:
            by = 1 if at >= getattr(self, "_last", 0) else -1
            while 0 <= at < len(self.rows) and self.rows[at].kind in {"heading", "blank", "more"}:
                at += by
            if not 0 <= at < len(self.rows):
                at = getattr(self, "_last", 0)
            listed.cursor = at
            return
        self._last = at
        self._show_side()
        self._keys()

    @property
    def selected(self) -> Row | None:
        """The line under the cursor."""
        at = self.query_one("#start-list", LongList).cursor
        return self.rows[at] if 0 <= at < len(self.rows) else None

    def _show_side(self) -> None:
        side, row = self.query_one("#start-side", Pane), self.selected
        if row is None:
            return
        width = side.room
        if row.session is not None:
            side.put(about_session(row.session, width))
            return
        side.put(self._about(row, width))

    def _about(self, row: Row, width: int) -> Lines:
        if row.kind == "scenario":
            lines = [said("scenario", "f"), said(row.title, "b"), blank(), *wrapped(row.told, width)]
            lines += [
                blank(),
                *wrapped("A tiny checkpoint is made, the defect is planted, and the load is recorded.", width, "m"),
            ]
            keys = paint("{k|Enter} {m|load it}   {k|b} {m|start it paused}")
            return [*lines, blank(), keys if self.launcher is not None else _cannot(width)[0]]
        told = "A folder with config.json and safetensors files, loaded by an engine with the probe armed."
        lines = [said("begin", "f"), said(row.title, "b"), blank(), *wrapped(told, width)]
        return [*lines, blank(), paint("{k|o} {m|or} {k|Enter} {m|asks for it}")]

    def _keys(self) -> None:
        text = "{k|j k} move  {k|Enter} open  {k|o} load  {k|b} start paused  {k|r} read again  {k|q} quit"
        self.query_one("#start-keys", Ends).put(paint(text))

    def on_chosen(self, _message: Chosen) -> None:
        """A double click opens."""
        self.action_open("")

    def action_open(self, look: str) -> None:
        """Open the selected session, load the selected scenario, or ask what to load."""
        row = self.selected
        if row is None:
            return
        if row.session is not None:
            self.open_session(row.session.path, Place(look) if look else None)
        elif look:
            self._notice("that opens a session; this line is none")
        elif row.kind == "scenario":
            self._launch(Wanted(scenario=row.title))
        elif row.kind == "begin":
            self.action_form()

    def open_session(self, path: Path, place: Place | None = None) -> None:
        """Lay the workbench over the start."""
        self.app.push_screen(SessionScreen(path, self.keymap, place))

    def action_paused(self) -> None:
        """Start the selected scenario paused at its first call."""
        row = self.selected
        if row is not None and row.kind == "scenario":
            self._launch(Wanted(scenario=row.title, is_paused=True))
        else:
            self._notice("b starts a scenario paused; in the form of o it starts a load paused")

    def action_form(self) -> None:
        """Ask for checkpoint, engine, tp and level."""
        if self.launcher is None:
            self._notice(_cannot(200)[0].plain)
            return

        def then(wanted: Wanted | None) -> None:
            if wanted is not None:
                self._launch(wanted)

        self.app.push_screen(FormScreen(), then)

    def _launch(self, wanted: Wanted) -> None:
        launcher = self.launcher
        if launcher is None:
            self._notice(_cannot(200)[0].plain)
            return
        self._notice(f"starting {wanted.scenario or wanted.model} …", "a")

        def start() -> None:
            try:
                path = launcher(wanted.model, wanted.engine, wanted.tp, wanted.level, wanted.is_paused, wanted.scenario)
            except Exception as error:  # noqa: BLE001 - whatever kept the host from starting is told, not raised
                self.app.call_from_thread(self._refused, error)
            else:
                self.app.call_from_thread(self.open_session, path, Place("timeline") if wanted.is_paused else None)

        self.run_worker(start, thread=True, group="launch", exclusive=True)

    def _refused(self, error: Exception) -> None:
        what = getattr(error, "what", str(error))
        self._notice(f"✗ {what}", "e")
        tells = getattr(error, "try_", "")
        side = self.query_one("#start-side", Pane)
        side.put([said("not started", "f"), *wrapped(what, side.room, "e"), *wrapped(tells, side.room, "m")])

    def _notice(self, text: str, role: str = "w") -> None:
        self.query_one("#start-keys", Ends).put(paint("{" + role + "|$}", text))

    def action_all(self) -> None:
        """All sessions of the folder, or the latest only."""
        self._shows_all = not self._shows_all
        self.action_reload()

    def action_leave(self) -> None:
        """Leave the workbench."""
        self.app.exit(0)


def _cannot(width: int) -> Lines:
    return wrapped("This workbench was opened without a way to start a host: use loadscope trace.", width, "m")
