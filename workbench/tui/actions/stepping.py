"""Keys that move in time: on a paused host they run it, on a recording they move `now`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessions.errors import SessionError
from sessions.filters import parse
from sessions.session import Session
from workbench.tui import moves

if TYPE_CHECKING:
    from workbench.tui.screens.session import SessionScreen


@dataclass(frozen=True)
class Verb:
    """One way to step: its direction, what the host is asked for at the end of a load, and the move in a recording."""

    by: int
    until: str
    move: Callable[[Session, int, int], int | None]
    noun: str


VERBS = {
    "next": Verb(1, "next", moves.next_call, "loader call"),
    "previous": Verb(-1, "", moves.next_call, "loader call"),
    "into": Verb(1, "any", moves.next_event, "event"),
    "into_back": Verb(-1, "", moves.next_event, "event"),
    "out": Verb(1, "out", moves.out, "enclosing span"),
    "out_back": Verb(-1, "", moves.out, "enclosing span"),
    "parameter": Verb(1, "parameter", moves.next_parameter, "parameter"),
    "parameter_back": Verb(-1, "", moves.next_parameter, "parameter"),
    "layer": Verb(1, "layer", moves.next_layer, "layer"),
    "layer_back": Verb(-1, "", moves.next_layer, "layer"),
    "continue": Verb(1, "breakpoint", moves.next_call, "breakpoint hit"),
    "continue_back": Verb(-1, "", moves.next_call, "breakpoint hit"),
}


def step(name: str) -> Callable[[SessionScreen], None]:
    """The action of one verb."""
    verb = VERBS[name]

    def act(screen: SessionScreen) -> None:
        session, snapshot = screen.session, screen.snapshot
        if session is None or snapshot is None:
            return
        is_at_end = screen.desk.now is None
        if verb.until and screen.host.is_paused and is_at_end:
            screen.controlling.run(verb.until)
            return
        try:
            target = _target(screen, session, name, verb)
        except SessionError as error:
            screen.notice(f"{error.what}: {error.try_}")
            return
        if target is not None and not (verb.by > 0 and is_at_end):
            screen.move_now(None if target >= len(session) - 1 else target)
        elif verb.by > 0 and screen.host.is_paused:
            screen.move_now(None)
        else:
            screen.notice(_no_more(screen, verb))

    return act


def _target(screen: SessionScreen, session: Session, name: str, verb: Verb) -> int | None:
    at = len(session) - 1 if screen.desk.now is None else screen.desk.now
    if name.startswith("continue"):
        return moves.next_hit(session, at, verb.by, screen.desk.breakpoints)
    return verb.move(session, at, verb.by)


def _no_more(screen: SessionScreen, verb: Verb) -> str:
    if verb.by < 0:
        return f"no {verb.noun} before this one"
    if screen.host.state == "gone":
        return f"no {verb.noun} after this one: the host ended"
    if screen.host.state == "running":
        return "the host runs: P pauses it at its next event"
    return f"no {verb.noun} after this one: the recording ends here, capitals go back"


def toggle_breakpoint(screen: SessionScreen) -> None:
    """A breakpoint on the selected parameter, on or off."""
    chosen = screen.selected()
    name = chosen[0].parameter(chosen[1]) if chosen is not None else ""
    if not name:
        screen.notice("b sets a breakpoint on a parameter: this row names none; B edits all")
        return
    text = f'parameter ~ "{_glob(name)}"'
    kept = screen.desk.breakpoints
    set_breakpoints(screen, [one for one in kept if one != text] if text in kept else [*kept, text])


def _glob(name: str) -> str:
    """The name as a glob that matches itself."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name) if not name.endswith(".*") else name


def edit_breakpoints(screen: SessionScreen) -> None:
    """All breakpoints in one line, parted by semicolons."""

    def then(text: str) -> None:
        set_breakpoints(screen, [one.strip() for one in text.split(";") if one.strip()])

    screen.prompt.ask("breakpoints, parted by ;", "; ".join(screen.desk.breakpoints), then)


def set_breakpoints(screen: SessionScreen, texts: list[str]) -> None:
    """Check and keep them; a host that can be controlled is told."""
    try:
        for text in texts:
            parse(text)
    except SessionError as error:
        screen.notice(f"{error.what}: {error.try_}")
        return
    screen.desk.breakpoints = texts
    screen.controlling.break_at(texts, screen.answered)
    told = "; ".join(f"{n} {text}" for n, text in enumerate(texts, 1))
    screen.draw_frame()
    screen.notice(f"breakpoints: {told}" if texts else "no breakpoints", "a")


def frame_up(screen: SessionScreen) -> None:
    """The span around the selected event."""
    chosen, session = screen.selected(), screen.session
    position = chosen[0].position(chosen[1]) if chosen is not None else None
    if position is None or session is None:
        screen.notice("u goes to the span around an event: t shows the events")
        return
    parent = session.parent(session.event(position))
    if parent is None:
        screen.notice("no span around this event")
        return
    if screen.desk.look != "timeline":
        screen.turn_to("timeline")
    if screen.view is not None:
        screen.select(screen.view.row_at(parent.position))


def pause(screen: SessionScreen) -> None:
    """Hold the running hosts at their next event."""
    if screen.host.state != "running":
        screen.notice("no running host to pause")
        return
    screen.controlling.ask(lambda control: control.pause(), screen.answered)
    is_alone = len(screen.host.ranks) < 2
    screen.notice("the host pauses at its next event" if is_alone else "all ranks pause, at one loader call", "a")


def release(screen: SessionScreen) -> None:
    """Let the hosts go."""
    if screen.host.state not in {"paused", "running"}:
        screen.notice("no host to release")
        return
    screen.controlling.ask(lambda control: control.release(), screen.answered)
    who = "the host runs" if len(screen.host.ranks) < 2 else "all ranks run"
    screen.notice(f"released: {who} on, with no more pauses", "a")
