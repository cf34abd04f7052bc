"""The session as of any of its events, made for going back and forth: what did not change since is used again."""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from operator import itemgetter
from weakref import WeakKeyDictionary

from sessions.parameters import ParameterView, parameters
from sessions.session import Session

CHANGING = ("loader.called", "weight.written", "write.suspected", "weight.repacked")
"""Kinds after which a parameter is not what it was."""


class ParameterMoments:
    """The parameters of one state of a session at any position; a view is made once for each change of its own."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._views = parameters(session)
        changes: dict[tuple[int, str], list[int]] = defaultdict(list)
        for kind in CHANGING:
            for row in session.rows(kind, ("parameter",)):
                changes[row[5], row[6] or ""].append(row[0])
        self._changes = [array("q", sorted(changes.get((view.rank, view.name), ()))) for view in self._views]
        self._made: list[dict[tuple[int, bool], ParameterView]] = [{} for _ in self._views]

    def at(self, until: int | None) -> tuple[ParameterView, ...]:
        """What `parameters(session, until)` gives."""
        if until is None or until >= len(self._session) or not self._views:
            return self._views
        now_ns = self._session.event(until).t_ns
        finals = self._views[0].ledger.finals
        is_final = {rank: finals.get(rank, now_ns + 1) <= now_ns for rank in {view.rank for view in self._views}}
        out: list[ParameterView] = []
        for view, changes, made in zip(self._views, self._changes, self._made, strict=True):
            if view.position > until:
                continue
            state = (bisect_right(changes, until), is_final[view.rank])
            found = made.get(state)
            if found is None:
                found = made[state] = self._seen_at(view, until, now_ns, is_whole=state[0] == len(changes))
            out.append(found)
        return tuple(out)

    def _seen_at(self, view: ParameterView, until: int, now_ns: int, *, is_whole: bool) -> ParameterView:
        """The view at a moment; where everything had happened to it, the boxes are those of the end."""
        seen = replace(view, until=until, now_ns=now_ns)
        if is_whole and "grid" in vars(view):
            vars(seen)["grid"] = view.grid
        return seen

    def warm(self, width: int, is_interrupted: Callable[[], bool]) -> bool:
        """Draw ahead what every parameter looks like empty and filled; False when interrupted before the end."""
        for view, changes, made in zip(self._views, self._changes, self._made, strict=True):
            if is_interrupted():
                return False
            view.cells(width)
            for state in ((0, False), (len(changes), False)):
                if state not in made:
                    until = view.position if not state[0] else changes[-1]
                    made[state] = self._seen_at(view, until, -1, is_whole=bool(state[0]))
                made[state].cells(width)
        return True


def parameters_at(session: Session, until: int | None) -> tuple[ParameterView, ...]:
    """All parameters as of the event at position `until`; quick for a position near one that was asked for before."""
    if until is None:
        return parameters(session)
    return moments(session).at(until)


def moments(session: Session) -> ParameterMoments:
    """The parameters of a session as it is now, at any of its events."""
    return session.kept("parameter moments", lambda: ParameterMoments(session))


class CallIndex:
    """The positions of all loader calls, ascending, and the parameter of each; grows with a live session."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done = 0
        self.positions = array("q")
        self.parameters: list[str] = []

    def catch_up(self, session: Session) -> CallIndex:
        """Take in the calls that came since the last time."""
        with self._lock:
            stop = len(session)
            found = [(row[0], row[6] or "") for row in session.rows("loader.called", ("parameter",), self._done, stop)]
            for position, parameter in sorted(found, key=itemgetter(0)):
                self.positions.append(position)
                self.parameters.append(parameter)
            self._done = stop
        return self

    def call(self, at: int, by: int) -> int | None:
        """The nearest call after (`by` 1) or before (-1) a position."""
        place = bisect_right(self.positions, at) if by > 0 else bisect_left(self.positions, at) - 1
        return self.positions[place] if 0 <= place < len(self.positions) else None

    def other(self, at: int, by: int, name: Callable[[str], str]) -> int | None:
        """The nearest call of another `name` (of its parameter) than that of the call at or before a position."""
        here = bisect_right(self.positions, at) - 1
        was = name(self.parameters[here]) if here >= 0 else None
        place = here + 1 if by > 0 else bisect_left(self.positions, at) - 1
        while 0 <= place < len(self.positions):
            if name(self.parameters[place]) != was:
                return self.positions[place]
            place += by
        return None


_INDEXES: WeakKeyDictionary[Session, CallIndex] = WeakKeyDictionary()


def loader_calls(session: Session) -> CallIndex:
    """The loader calls of a session, as of now."""
    return _INDEXES.setdefault(session, CallIndex()).catch_up(session)


def failures(session: Session) -> list[int]:
    """The positions at which an exception passed a tracepoint."""
    return sorted(row[0] for row in session.rows("stage.failed", ()))
