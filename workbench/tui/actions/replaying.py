"""Keys that move through a recording by themselves, and the one that does the load again."""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sessions.errors import SessionError
from workbench.errors import UserError
from workbench.tui import moves
from workbench.tui.launching import Replayed, Replayer
from workbench.tui.lens import Place
from workbench.tui.paint import Lines, said
from workbench.tui.snapshot import fault_of
from workbench.tui.views.view import Page

if TYPE_CHECKING:
    from workbench.tui.screens.session import SessionScreen

CONTINUED = " " * 22


def play(screen: SessionScreen) -> None:
    """Play from `now`, or stop."""
    screen.playing.turn()


def speed(by: int) -> Callable[[SessionScreen], None]:
    """A faster or a slower speed."""

    def act(screen: SessionScreen) -> None:
        screen.playing.shift(by)

    return act


def to_start(screen: SessionScreen) -> None:
    """The first event."""
    if screen.session is not None and len(screen.session) > 1:
        screen.move_now(0)


def to_end(screen: SessionScreen) -> None:
    """The last event; of a live session the one that will be the last."""
    screen.move_now(None)


def to_failure(screen: SessionScreen) -> None:
    """The next exception after `now`, going round."""
    session = screen.session
    if session is None:
        return
    at = len(session) if screen.desk.now is None else screen.desk.now
    found = moves.next_failure(session, at, 1)
    if found is None:
        found = moves.next_failure(session, -1, 1)
    if found is None:
        screen.notice("no exception passed a tracepoint in this session")
    else:
        screen.move_now(None if found >= len(session) - 1 else found)


def replay(screen: SessionScreen) -> None:
    """Do the load again in the background; then the verdict, with the first event that differs below it."""
    replayer: Replayer | None = getattr(screen.app, "replayer", None)
    if replayer is None:
        screen.notice(f"these screens start no host: loadscope replay {screen.path}")
    elif getattr(screen, "is_replaying", False):
        screen.notice("the load is being done again already", "a")
    else:
        screen.is_replaying = True
        screen.notice("replaying: the load is done again …", "a")
        threading.Thread(target=_run, args=(screen, replayer, screen.path), daemon=True).start()


def _run(screen: SessionScreen, replayer: Replayer, path: Path) -> None:
    def progress(done: int, total: int) -> None:
        _tell(screen, lambda: screen.notice(f"replaying: {done:,} of {total:,} events", "a"))

    try:
        found = replayer(path, progress)
    except (UserError, SessionError) as error:
        found = Replayed((error.what, error.try_), is_verdict=False)
    except Exception as error:  # noqa: BLE001 - a fault of the replay must not end the screens
        fault = fault_of(error)
        found = Replayed((fault.what, fault.try_), is_verdict=False)
    _tell(screen, lambda: _show(screen, found))


def _tell(screen: SessionScreen, act: Callable[[], None]) -> None:
    if screen.is_attached and screen.app.is_running:
        screen.app.call_from_thread(act)


def _show(screen: SessionScreen, found: Replayed) -> None:
    screen.is_replaying = False
    screen.notice(next((line for line in found.lines if line.startswith("verdict")), found.lines[0]), "a")
    if found.position is not None:
        screen.go(Place("timeline", position=found.position))
    screen.show_page(Page("replay", lines_of(found, max(40, screen.size.width - 6))))


def lines_of(found: Replayed, width: int) -> Lines:
    """The report, its verdict in the role that it deserves."""
    out: Lines = []
    for number, line in enumerate(found.lines):
        is_verdict = line.startswith("verdict") or (not found.is_verdict and number == 0)
        role = "t" if not is_verdict else "b" if found.is_verdict and found.position is None else "e"
        out += [said(part, role) for part in textwrap.wrap(line, width, subsequent_indent=CONTINUED) or [""]]
    return out
