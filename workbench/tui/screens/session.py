"""The workbench on one session: fixed widgets whose contents are swapped; a question is a value, not a widget tree."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container, Vertical
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Static

from sessions.control import ControlError
from sessions.session import Session
from workbench.tui import frame
from workbench.tui.actions.table import ACTIONS
from workbench.tui.controlling import Controlling
from workbench.tui.desk import Desk
from workbench.tui.frame import Host, position_of
from workbench.tui.keymap import KEYS, SCREEN_BINDINGS, Keymap
from workbench.tui.lens import Lens, Place
from workbench.tui.messages import Chosen, HostStateChanged, Moved, ReadingFailed, SnapshotReady, SpineClicked
from workbench.tui.paint import Lines, paint, said, wrapped
from workbench.tui.playing import Playing
from workbench.tui.reader import Reader
from workbench.tui.screens.page import PageScreen
from workbench.tui.snapshot import Snapshot, fault_of
from workbench.tui.tensors import value_at_hand
from workbench.tui.views.aside import aside
from workbench.tui.views.table import QUESTIONS, VIEWS, Broken, view_of
from workbench.tui.views.view import Page, Reading, View
from workbench.tui.widgets.ends import Ends
from workbench.tui.widgets.longlist import LongList
from workbench.tui.widgets.pane import Pane
from workbench.tui.widgets.prompt import Prompt
from workbench.tui.widgets.spine import Spine
from workbench.tui.widgets.tabs import Tabs

SMALLEST = (80, 20)
ROOMY, ROOMY_ROWS = 100, 30


class SessionScreen(Screen[None]):
    """Header, tabs, spine, graphic, list, detail, aside, step bar and keys of one session."""

    BINDINGS = [Binding(**one) for one in SCREEN_BINDINGS]
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-normal"), (180, "-wide")]

    def __init__(self, path: Path, keymap: Keymap | None = None, place: Place | None = None) -> None:
        super().__init__()
        self.path, self.keymap = path, keymap or Keymap()
        self.reader = Reader(path, self._post)
        self.desk = Desk()
        self.snapshot: Snapshot | None = None
        self.view: View | None = None
        self.controlling = Controlling(path, self._post)
        self._opens_at = place
        self.at_hand: Mapping[str, Any] = {}
        self.playing = Playing(self)
        self.is_replaying = False
        self._is_following = True
        self._is_noticed = False
        self._is_leaving = False

    def compose(self) -> ComposeResult:
        """The fixed widgets."""
        yield Static(id="tiny", markup=False)
        yield Ends(id="top")
        yield Tabs(QUESTIONS, id="tabs")
        yield Spine(id="spine")
        with Container(id="body"):
            with Vertical(id="left"):
                yield Pane(id="above")
                yield LongList(id="list")
                yield Pane(id="empty")
            yield Pane(id="detail")
            yield Pane(id="aside")
        yield Ends(id="step")
        yield Ends(id="keys")
        yield Prompt(id="prompt")

    def on_mount(self) -> None:
        """The frame is drawn at once; the reader's first snapshot fills it."""
        for id_ in ("above", "empty", "aside"):
            self.query_one(f"#{id_}", Pane).can_focus = False
        self.query_one("#above").display = False
        self.query_one("#top", Ends).put(paint("{A|◆} {b|$}", self.path.name), said("opening …", "m"))
        self.query_one("#tabs", Tabs).put(self.desk.look, 0, "m")
        self.query_one("#list", LongList).focus()
        self.reader.start()
        self.controlling.start()

    def on_unmount(self) -> None:
        """Nothing outlives the screen."""
        self.reader.stop()
        self.controlling.stop()

    def _post(self, message: Message) -> None:
        if self.is_attached:
            self.post_message(message)

    # What arrives

    def on_snapshot_ready(self, message: SnapshotReady) -> None:
        """Other facts: everything is drawn anew, the cursor stays on its row."""
        is_first = self.snapshot is None or self.snapshot.is_pending
        self.snapshot = message.snapshot
        if self.snapshot.is_pending:
            self.draw()
            return
        if is_first:
            self.desk.breakpoints = list(message.snapshot.manifest.breakpoints)
            self._arrive()
        self.draw(centre=is_first)

    def _arrive(self) -> None:
        place = self._opens_at
        if place is None and self.snapshot is not None and self.snapshot.unread and not self.desk.stack:
            place = Place("findings")
        if place is not None:
            self.desk.settle(place)

    def on_reading_failed(self, message: ReadingFailed) -> None:
        """Two lines in the pane concerned; the frame stays."""
        self.query_one("#top", Ends).put(paint("{A|◆} {b|$}", self.path.name), said("✗ unreadable", "e"))
        width = max(20, self.query_one("#left").content_size.width - 2)
        self._show_empty([*wrapped(f"✗ {message.what}", width, "e"), *wrapped(message.try_, width, "m")])
        self.query_one("#keys", Ends).put(paint("{k|q} back  {k|?} help"))

    def on_host_state_changed(self, message: HostStateChanged) -> None:
        """The host paused or went on: `now` follows it."""
        message.stop()
        if self.host.is_paused:
            self.desk.now = None
            self._is_following = True
            self.controlling.ask(lambda control: control.inspect("source", rows=1, columns=1), self._told_at_hand)
        self.reader.want(self.desk.now)
        self.draw_frame()

    def _told_at_hand(self, answer: object) -> None:
        self.app.call_from_thread(self._take_at_hand, answer if isinstance(answer, Mapping) else {})

    def _take_at_hand(self, told: Mapping[str, Any]) -> None:
        self.at_hand = told
        self.draw_detail()

    def host_position(self) -> int | None:
        """Where a paused host stands, None when it is not paused or that is not recorded yet."""
        return position_of(self.host, self.session) if self.session is not None else None

    def on_moved(self, message: Moved) -> None:
        """The detail follows the cursor."""
        if self.view is not None and message.row < len(self.view.rows):
            row = self.view.rows[message.row]
            self.desk.rows[self.desk.look] = self.view.identity(row)
            self._is_following = message.row == len(self.view.rows) - 1
            self.draw_detail()

    def on_chosen(self, _message: Chosen) -> None:
        """A double click follows."""
        self.action_do("follow")

    def on_spine_clicked(self, message: SpineClicked) -> None:
        """A click on the spine moves `now`."""
        if self.snapshot is not None:
            inside = min(1.0, message.fraction / self.snapshot.spine.extent)
            self.move_now(round(inside * (self.snapshot.count - 1)))

    def on_resize(self, event: events.Resize) -> None:
        """Widths are drawn anew; a terminal that is too small says so."""
        width, height = event.size
        is_tiny = width < SMALLEST[0] or height < SMALLEST[1]
        self.set_class(is_tiny, "-tiny")
        self.query_one("#tiny", Static).update(f"needs {SMALLEST[0]}×{SMALLEST[1]}, has {width}×{height}")
        self.call_after_refresh(self.draw)

    # What is shown

    @property
    def host(self) -> Host:
        """The state of the host, when it can be controlled."""
        return self.controlling.host

    @property
    def session(self) -> Session | None:
        """The open session."""
        return self.reader.session

    def draw(self, *, centre: bool = False) -> None:
        """Make the view anew and show it; the cursor stays on the same row if that still exists."""
        snapshot, session = self.snapshot, self.session
        if snapshot is None or session is None or not self.is_mounted:
            return
        self.draw_frame()
        view = self.view = self._made(Reading(session, snapshot, self._hints), self.desk.lens)
        cursor = self._cursor(view)
        above = self.query_one("#above", Pane)
        has_room = self.size.width >= ROOMY and self.size.height >= ROOMY_ROWS
        lines = self._above(view, has_room=has_room) if view.rows else []
        above.display = bool(lines)
        above.styles.height = len(lines) + 1 if lines else 0
        above.put(lines)
        self.query_one("#list", LongList).put(view.columns, view.rows, view.cells, cursor, centre=centre)
        self.set_class(not view.rows, "-empty")
        if view.rows:
            self.desk.rows[self.desk.look] = view.identity(view.rows[cursor])
        else:
            width = max(20, self.query_one("#left").content_size.width - 2)
            self.query_one("#empty", Pane).put([said("…", "m")] if snapshot.is_pending else view.empty(width))
        self.draw_detail()

    def _made(self, reading: Reading, lens: Lens) -> View:
        try:
            return view_of(self.desk.look, reading, lens)
        except Exception as error:  # noqa: BLE001 - one broken question must leave the seven others usable
            return Broken(reading, lens, fault_of(error))

    def _above(self, view: View, *, has_room: bool) -> Lines:
        try:
            return (view.above if has_room else view.brief)(max(20, self.query_one("#left").content_size.width - 2))
        except Exception as error:  # noqa: BLE001 - the list stays usable when its graphic fails
            return [said(f"✗ {fault_of(error).what}", "e")]

    def _cursor(self, view: View) -> int:
        if self.snapshot is not None and self.snapshot.is_live and self._is_following and view.follows_end:
            paused_at = self.host_position()
            return len(view.rows) - 1 if paused_at is None else view.row_at(paused_at)
        wanted = self.desk.rows.get(self.desk.look)
        found = view.row_of(wanted) if wanted is not None else view.start()
        if found is None:
            was = self.query_one("#list", LongList).cursor
            found = min(was, len(view.rows) - 1)
        return max(0, found)

    def _show_empty(self, lines: Lines) -> None:
        self.add_class("-empty")
        self.query_one("#empty", Pane).put(lines)

    def draw_frame(self) -> None:
        """Header, tabs, spine, step bar and keys."""
        snapshot = self.snapshot
        if snapshot is None or not self.is_mounted:
            return
        state = frame.playing(self.playing.speed) if self.playing.is_on else frame.state(snapshot, self.host)
        right = Text.assemble(state, "  ", frame.position(snapshot, self._tensors_read()))
        self.query_one("#top", Ends).put(frame.header_left(snapshot), right)
        has_error = any(one.severity == "error" for one in snapshot.findings)
        self.query_one("#tabs", Tabs).put(self.desk.look, snapshot.unread, "E" if has_error else "W")
        self.query_one("#spine", Spine).put(snapshot.spine)
        self.set_class(bool(self.host.state), "-stepping")
        self.query_one("#step", Ends).put(*frame.step_bar(self.host, self.desk.breakpoints, self.keymap))
        if not self._is_noticed:
            self._draw_keys()

    def _tensors_read(self) -> int:
        return self.session.count("tensor.read") if self.session is not None else 0

    def _draw_keys(self) -> None:
        hints = VIEWS[self.desk.look].hints
        is_roomy = self.size.width >= ROOMY
        question = next(one.help for one in KEYS if one.word == self.desk.look)
        right = said(question, "f") if is_roomy else Text()
        if self.snapshot is not None and self.snapshot.timeline is not None and not self.snapshot.is_indexed:
            right = said(f"indexing, {len(self.snapshot.timeline):,} rows so far", "a")
        room = self.size.width - 4 - (right.cell_len + 2 if is_roomy else 0)
        self.query_one("#keys", Ends).put(frame.key_line(hints, self.keymap, room), right)

    def _hints(self, hints: object) -> Text:
        return self.keymap.line(hints, "   ", "m")  # type: ignore[arg-type]

    def draw_detail(self) -> None:
        """The detail of the selected row; a fault in it stays in its pane."""
        pane, view = self.query_one("#detail", Pane), self.view
        if view is None or not view.rows:
            pane.put([])
            return
        row = view.rows[min(self.query_one("#list", LongList).cursor, len(view.rows) - 1)]
        try:
            lines = view.detail(row, pane.room)
            if self.at_hand and view.position(row) == self.host_position() and self.desk.now is None:
                lines[-2:-2] = value_at_hand(self.at_hand, pane.room)
        except Exception as error:  # noqa: BLE001 - the list stays usable when one row's detail fails
            fault = fault_of(error)
            lines = [*wrapped(f"✗ {fault.what}", pane.room, "e"), *wrapped(fault.try_, pane.room, "m")]
        pane.put(lines)
        if self.size.width >= 180 and self.snapshot is not None and self.session is not None:
            side = self.query_one("#aside", Pane)
            side.put(aside(self.session, self.snapshot, side.size.height))

    # What keys do

    def action_do(self, id_: str) -> None:
        """One action of the key table; a notice of the last one goes away first."""
        if self._is_noticed:
            self._is_noticed = False
            self._draw_keys()
        if id_ != "back":
            self._is_leaving = False
        if id_.startswith("step."):
            self.playing.stop()
        ACTIONS[id_](self)

    def selected(self) -> tuple[View, object] | None:
        """The view and its selected row, None for an empty list."""
        if self.view is None or not self.view.rows:
            return None
        return self.view, self.view.rows[min(self.query_one("#list", LongList).cursor, len(self.view.rows) - 1)]

    def select(self, row: int) -> None:
        """Put the cursor on a row of the open list."""
        if self.view is not None and 0 <= row < len(self.view.rows):
            # at once: a snapshot that comes before the list has told of its cursor would put it back
            self.desk.rows[self.desk.look] = self.view.identity(self.view.rows[row])
        self.query_one("#list", LongList).cursor = row

    def notice(self, text: str, role: str = "w") -> None:
        """One line in place of the keys, until the next key."""
        self._is_noticed = True
        self.query_one("#keys", Ends).put(paint("{" + role + "|$}", text))

    def turn_to(self, look: str, row: Hashable = None) -> None:
        """Open another question."""
        self.desk.turn_to(look)
        if row is not None:
            self.desk.rows[look] = row
        self.draw(centre=True)

    def go(self, place: Place) -> None:
        """Go to a place; Esc comes back."""
        was = self.desk.now
        self.desk.leave_for(place)
        self._land(place, was)

    def back(self) -> bool:
        """Go to the place before; False on the first one."""
        was = self.desk.now
        place = self.desk.back()
        if place is None:
            return False
        self._land(place, was)
        return True

    def _land(self, place: Place, was: int | None) -> None:
        if place.position is not None:
            self.desk.now = place.position
        if self.desk.now != was:
            self.reader.want(self.desk.now)
        self._is_following = False
        self.draw(centre=True)
        if place.position is not None and place.row is None:
            self._stand_at(place.position)

    def move_now(self, position: int | None) -> None:
        """Another `now`; on the timeline the cursor goes along."""
        self.desk.now = position
        self.reader.want(position)
        self._is_following = position is None
        if self.view is not None and self.view.is_in_time and self.snapshot is not None:
            self._stand_at(self.snapshot.count - 1 if position is None else position)

    def _stand_at(self, position: int) -> None:
        """Put the cursor on the row of an event; the next snapshot may come before the list's message about it."""
        if self.view is not None and self.view.rows:
            row = self.view.row_at(position)
            self.desk.rows[self.desk.look] = self.view.identity(self.view.rows[row])
            self.select(row)

    def set_lens(self, **changes: object) -> None:
        """Look at the open list differently."""
        self.desk.lens = replace(self.desk.lens, **changes)  # type: ignore[arg-type]
        self.draw()

    def show_page(self, page: Page) -> None:
        """A page over the screen; Esc or q closes it."""
        self.app.push_screen(PageScreen(page))

    def answered(self, answer: object) -> None:
        """What the host said to a request, from the control thread: a refusal is told."""
        if isinstance(answer, ControlError):
            self.app.call_from_thread(self.notice, str(answer))

    def leave(self) -> None:
        """Out of the session; with a host that waits, only when asked twice."""
        if self.host.is_paused and not self._is_leaving:
            self._is_leaving = True
            self.notice("the host is paused and goes on when you leave: q again leaves, ! releases it")
            return
        leave = getattr(self.app, "leave_session", self.app.exit)
        leave()

    @property
    def prompt(self) -> Prompt:
        """The line to type in."""
        return self.query_one("#prompt", Prompt)
