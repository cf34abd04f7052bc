"""Every host process of a session as one that can be stepped: no rank goes past the loader call of the shown one."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from sessions.control import ControlError
from sessions.manifest import Manifest
from sessions.ranks import TOGETHER, Rank, RankControl, RankPlace

NEWCOMERS_S = 0.5
LOOK_S = 0.05
_MARK = Path("control", "stepped")
_FREE, _STEPPED, _RELEASED = "free", "stepped", "released"


class Together:
    """The hosts of one session. What a client of one host can ask is here answered by, or done to, all of them.

    Each round every rank runs to its next loader call and is held there. The leader, which is the rank that was shown
    when the step began, is let go from its call when nobody is on the way there any more; the others are let go from a
    call once the leader has left it. When one of them stops for a reason of its own, nobody goes past that place.
    """

    patience_s = 60.0
    """How long a rank is waited for that has loaded before and is in no collective."""
    patience_with_idle_s = 5.0
    """The same of a host that has not made a loader call yet: many never do."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._ranks = folder, list[Rank]()
        self._mode, self._until = _FREE, "breakpoint"
        self._shown: Rank | None = None
        self._leader: Rank | None = None
        self._stopper: Rank | None = None
        self._is_pausing = self._is_chosen = self._has_stepped = False
        self._conditions: list[str] | None = None
        self._looked_at, self._waits_since = -NEWCOMERS_S, 0.0

    @classmethod
    def connect(cls, folder: str | Path) -> Together | None:
        """Every host of the session that answers; None when none does (not started yet, or ended)."""
        made = cls(Path(folder))
        made._look_for_newcomers()
        if not made._ranks:
            return None
        with suppress(OSError, ValueError):
            if Manifest.read(made._folder).breakpoints:
                made._step_from_here()
        return made

    # --- what a client of one host asks

    @property
    def pid(self) -> int:
        """The process of the shown rank."""
        return self._shown.pid if self._shown is not None else 0

    @property
    def _alive(self) -> list[Rank]:
        return [one for one in self._ranks if not one.is_over]

    def ranks(self) -> tuple[RankPlace, ...]:
        """Where every rank is, by rank; hosts without one come last."""
        places = (one.place(self._shown) for one in self._ranks)
        return tuple(sorted(places, key=lambda one: (one.rank < 0, one.rank, one.pid)))

    def state(self) -> dict[str, Any]:
        """Of the shown rank; "paused" when the step is over for it. `ranks` has where all are."""
        self._conduct(0.0)
        return self._told()

    def wait(self, seconds: float) -> dict[str, Any]:
        """The same as soon as a step is over or all hosts have ended, or after `seconds`."""
        give_up = time.monotonic() + seconds
        while True:
            left = give_up - time.monotonic()
            is_in_rounds = self._mode == _STEPPED and len(self._alive) > 1
            self._conduct(max(0.0, min(left, LOOK_S) if is_in_rounds else left))
            told = self._told()
            if told["state"] != "running" or left <= 0:
                return told

    def run(self, until: str) -> None:
        """Let the shown rank go on until the next place of that sort, and all others to the same loader call."""
        if not self._is_chosen and self._alive:
            self._shown = min(self._alive, key=lambda one: (one.rank < 0, one.rank))
        self._begin(_STEPPED)
        self._until, self._leader, self._has_stepped = until, self._shown, True
        self._conduct(0.0)

    def pause(self) -> None:
        """Hold every host at its next event, then bring those that are behind to the loader call of the furthest."""
        self._begin(_STEPPED)
        self._leader, self._is_pausing = self._shown, True
        for one in self._alive:
            one.do("pause")

    def release(self) -> None:
        """Let all hosts go, and those that come."""
        self._begin(_RELEASED)
        self._conditions = None
        for one in self._alive:
            one.do("release")

    def breakpoints(self, conditions: list[str]) -> None:
        """Replace the breakpoints of all hosts; ControlError names the one that cannot be read."""
        for one in self._alive:
            one.do("breakpoints", conditions)
        self._conditions = conditions
        if conditions and self._mode == _FREE:
            self._step_from_here()

    def inspect(
        self, what: str = "source", *, row: int = 0, column: int = 0, rows: int = 8, columns: int = 8
    ) -> dict[str, Any]:
        """The tensor at hand of the shown rank."""
        if self._shown is None:
            raise ControlError("no host is there")
        return self._shown.control.inspect(what, row=row, column=column, rows=rows, columns=columns)

    def show(self, rank: int) -> bool:
        """From now on the state, the tensors and the steps are of this rank; False when no live host is it."""
        found = next((one for one in self._alive if one.place(None).rank == rank), None)
        self._shown, self._is_chosen = found or self._shown, self._is_chosen or found is not None
        return found is not None

    def close(self) -> None:
        """Leave; hosts that nobody else is connected to go on."""
        self._unmark()
        for one in self._ranks:
            one.control.close()

    # --- who is there

    def _conduct(self, seconds: float) -> None:
        """Look at every host, then let go who may go."""
        if time.monotonic() - self._looked_at >= NEWCOMERS_S:
            self._look_for_newcomers()
        running = [one for one in self._alive if not one.is_paused]
        for one in self._alive:
            one.look(seconds / max(1, len(running)))
        self._ranks = [one for one in self._ranks if not one.is_over or one.number]
        self._replace_the_ended()
        if self._mode == _STEPPED:
            self._decide()
        elif self._mode == _FREE:
            self._hold_all_where_one_is()
        else:
            for one in self._alive:
                if one.is_paused:
                    one.do("release")

    def _look_for_newcomers(self) -> None:
        self._looked_at = time.monotonic()
        known = {str(one.pid) for one in self._alive}
        for note in sorted((self._folder / "control").glob("*.json")):
            control = RankControl.of_note(note) if note.stem not in known else None
            if control is not None:
                self._welcome(Rank(control))
        self._replace_the_ended()

    def _welcome(self, one: Rank) -> None:
        self._ranks = [*(other for other in self._ranks if other.pid != one.pid), one]
        if self._conditions is not None:
            one.do("breakpoints", self._conditions)
        one.look()
        one.look_where()
        one.has_moved = one.why != "start"
        if self._mode == _STEPPED and not one.is_paused:
            one.do("hold_at", one.number + 1)

    def _replace_the_ended(self) -> None:
        """When the shown rank, or the one whose step it is, has ended, the next one takes its place."""
        alive = sorted(self._alive, key=lambda one: (not one.is_paused, one.rank < 0, one.rank))
        if alive and (self._shown is None or self._shown.is_over or not (self._is_chosen or self._has_stepped)):
            self._shown = alive[0]
        if alive and self._leader is not None and self._leader.is_over:
            self._leader = self._shown
        if self._stopper is not None and self._stopper.is_over:
            self._stopper = next((one for one in alive if one.is_paused), None)

    # --- rounds

    def _begin(self, mode: str) -> None:
        self._mode, self._stopper, self._is_pausing = mode, None, False
        self._waits_since = 0.0
        if mode == _STEPPED:
            self._mark()
        else:
            self._unmark()
        for one in self._ranks:
            one.has_moved = not one.is_paused

    def _step_from_here(self) -> None:
        """Where a breakpoint is set, running hosts go in rounds: afterwards it would be too late to hold the others."""
        if len(self._alive) < 2 or any(one.is_paused for one in self._alive):
            return
        self._begin(_STEPPED)
        self._until, self._leader = "breakpoint", self._shown
        for one in self._alive:
            one.do("hold_at", one.number + 1)

    def _hold_all_where_one_is(self) -> None:
        """Nobody has asked for anything yet, and one host is held: the others are held at that loader call too."""
        stopper = next((one for one in self._alive if one.is_paused), None)
        if stopper is None:
            return
        self._begin(_STEPPED)
        self._stopper = self._shown = self._leader = stopper
        self._is_chosen = stopper.why != "start"  # at the start one is as good as the other: the first rank is shown
        for one in self._alive:
            if not one.is_paused:
                one.do("hold_at", max(1, stopper.number + (stopper.call is None)))

    def _decide(self) -> None:
        paused = [one for one in self._alive if one.is_paused]
        if self._is_pausing and paused:
            self._stopper = max(paused, key=lambda one: (one.number, one.call is None))
        elif self._stopper is None:
            stopped = [one for one in paused if one.has_stopped]
            self._stopper = self._leader if self._leader in stopped else next(iter(stopped), None)
        first = self._stopper or self._leader
        if first is None:
            return
        for one in paused:
            if one is not first and self._may_go_on(one, first):
                one.go("breakpoint", self._next_call(one))
        if self._stopper is not None:
            self._show_one_that_is_held()
        elif first.is_paused and (first.call is None or self._is_nobody_on_the_way()):
            self._waits_since = 0.0
            first.go(self._until, self._next_call(first))
        elif not first.is_paused and self._is_nobody_on_the_way():
            self._hand_over(paused)

    def _next_call(self, one: Rank) -> int | None:
        """Where a rank that is let go is held in any case; one that is alone need not be."""
        return one.number + 1 if len(self._alive) > 1 else None

    def _may_go_on(self, one: Rank, first: Rank) -> bool:
        """True when `first` has left the call in which `one` is held, or `one` is in none and not as far."""
        if self._stopper is not None and one.why not in {TOGETHER, "start", "step" if self._is_pausing else ""}:
            return False
        if one.call is not None:
            return one.call != first.call and first.has_left(one.call)
        return self._stopper is None or one.number < first.number

    def _is_nobody_on_the_way(self) -> bool:
        """True when every rank is held, has ended, or is not to be waited for any longer."""
        away = [one for one in self._alive if not one.is_paused and one.is_awaited]
        if not away or len(away) == len(self._alive):
            self._waits_since = 0.0
            return not away
        self._waits_since = self._waits_since or time.monotonic()
        waited_s = time.monotonic() - self._waits_since
        if waited_s > LOOK_S:
            for one in away:
                one.look_where()
        is_deadlock = all(one.where.get("collective") for one in away)  # they wait there for those that are held
        for one in away:
            is_late = waited_s > (self.patience_s if one.number else self.patience_with_idle_s)
            one.is_awaited = not (is_late or is_deadlock)
        return not any(one.is_awaited for one in away)

    def _hand_over(self, paused: list[Rank]) -> None:
        """The leader does not come to a call, and all others wait for it: their step is over, or one of them leads."""
        if paused:
            self._leader = self._shown = min(paused, key=lambda one: (one.rank < 0, one.rank))
            self._stopper = None if self._until == "breakpoint" else self._leader

    def _show_one_that_is_held(self) -> None:
        """The shown rank is in a collective, or elsewhere: the one for which all were held is shown."""
        shown = self._shown
        if shown is not None and not shown.is_paused and self._is_nobody_on_the_way():
            self._shown = self._stopper

    def _told(self) -> dict[str, Any]:
        shown, stopper = self._shown, self._stopper
        if shown is None or not self._alive:
            return {"state": "ended", "seq": 0, "why": "", "breakpoint": None, "pid": self.pid, "ranks": self.ranks()}
        if stopper is not None:
            for one in self._alive:
                one.look_where()
        told = {**shown.told, "pid": shown.pid, "ranks": self.ranks()}
        if shown.is_paused and stopper is None:
            return {**told, "state": "running"}
        if stopper is not None and stopper is not shown and shown.why == TOGETHER:
            why = f"{stopper.why} on {stopper.place(None).name}"
            told |= {"why": why, "breakpoint": stopper.told.get("breakpoint")}
        return told

    # --- hosts that come while others are held

    def _mark(self) -> None:
        with suppress(OSError):
            (self._folder / _MARK).write_text(str(os.getpid()), "ascii")

    def _unmark(self) -> None:
        with suppress(OSError):
            (self._folder / _MARK).unlink()
