"""Where a step leads in what was recorded: pure functions from a position to a position."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from sessions.errors import SessionError
from sessions.event import Event
from sessions.filters import parse
from sessions.launches import layer_of
from sessions.moments import failures, loader_calls
from sessions.session import Session

BLOCK = 512
Test = Callable[[Event], bool]


def nearest(session: Session, at: int, by: int, test: Test) -> int | None:
    """The nearest event after (`by` 1) or before (-1) a position for which `test` holds; None when there is none."""
    last = len(session) - 1
    for block in count():
        if by > 0:
            start = at + 1 + block * BLOCK
            page = session.page(start, start + BLOCK) if start <= last else []
        else:
            stop = at - block * BLOCK
            page = session.page(max(0, stop - BLOCK), stop)[::-1] if stop > 0 else []
        if not page:
            return None
        for event in page:
            if test(event):
                return event.position
    return None


def next_call(session: Session, at: int, by: int) -> int | None:
    """The next or previous loader call, over its splits."""
    return loader_calls(session).call(at, by)


def next_event(session: Session, at: int, by: int) -> int | None:
    """The next or previous event of any kind."""
    target = at + by
    return target if 0 <= target < len(session) else None


def out(session: Session, at: int, by: int) -> int | None:
    """The first event after the enclosing span, or the span itself."""
    parent = session.parent(session.event(at)) if 0 <= at < len(session) else None
    if parent is None:
        return None
    if by < 0:
        return parent.position
    if parent.dur_ns is None:
        return None
    end = parent.t_ns + parent.dur_ns
    return nearest(session, at, 1, lambda event: event.t_ns >= end and event.stream == parent.stream)


def next_parameter(session: Session, at: int, by: int) -> int | None:
    """The first call of the next, or the last call of the previous, parameter."""
    return loader_calls(session).other(at, by, lambda parameter: parameter)


def next_layer(session: Session, at: int, by: int) -> int | None:
    """The same for layers."""
    return loader_calls(session).other(at, by, layer_of)


def next_failure(session: Session, at: int, by: int) -> int | None:
    """The next or previous place at which an exception passed."""
    found = [position for position in failures(session) if (position - at) * by > 0]
    return (min(found) if by > 0 else max(found)) if found else None


def next_hit(session: Session, at: int, by: int, breakpoints: list[str]) -> int | None:
    """The next or previous event at which a breakpoint holds. SessionError for a breakpoint that cannot be read."""
    filters = [parse(text) for text in breakpoints]
    if not filters:
        raise SessionError("no breakpoints are set", "b sets one at the selection, B edits them")
    return nearest(session, at, by, lambda event: any(one.matches(event) for one in filters))
