"""One rank among several that are stepped together: its control channel, and what is known of where it is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from sessions.control import Control, ControlError

AGAIN_S = 0.2
"""How old an answer may be about a host of which nothing new is expected."""
TOGETHER = "together"
"""Why a rank is held that has no reason of its own; the host's word for it."""
_RUNNING = {"state": "running", "seq": 0, "why": "", "breakpoint": None, "rank": -1, "number": 0, "call": None}


class RankControl(Control):
    """A control channel with what only ranks that are stepped together are asked."""

    @classmethod
    def of_note(cls, note: Path) -> RankControl | None:
        """The host that left this note, None when it does not answer."""
        found = cls._connect(note)
        return found if isinstance(found, cls) else None

    @classmethod
    def all_of(cls, session: Path) -> list[RankControl]:
        """Every host of the session that answers."""
        return [
            found for note in sorted((session / "control").glob("*.json")) if (found := cls.of_note(note)) is not None
        ]

    def run_together(self, until: str, at_most: int | None, *, goes_on: bool) -> None:
        """As `run`, held at the `at_most`-th loader call in any case; `goes_on` with a step held on its way."""
        self.ask({"do": "run", "until": until, "at_most": at_most, "goes_on": goes_on})

    def hold_at(self, number: int) -> None:
        """Hold it at its `number`-th loader call, or at the next one when it is past that."""
        self.ask({"do": "hold_at", "number": number})

    def has_left(self, call: dict[str, Any]) -> bool:
        """True when it has made that loader call of another rank and is out of it."""
        return self.ask({"do": "has_left", "call": call}).get("has_left") is True

    def whereabouts(self) -> dict[str, Any]:
        """`collective` in which a thread of it waits, "" for none; `timeouts` in seconds by backend."""
        return self.ask({"do": "whereabouts"})


class Onlooker(RankControl):
    """A connection that holds nobody and, when it is closed, lets nobody go."""

    _GREETING: ClassVar[dict[str, object]] = {"only_looks": True}


@dataclass(frozen=True)
class RankPlace:
    """Where one rank is. `state` is "running", "paused" or "ended"; `number` counts its loader calls.

    `call` has parameter, checkpoint_name, shard_id, expert_id and occurrence of the call in which it is held.
    """

    pid: int
    rank: int
    state: str
    why: str
    number: int
    call: dict[str, Any] | None
    collective: str = ""
    timeouts: dict[str, float] = field(default_factory=dict)
    is_shown: bool = False

    @property
    def name(self) -> str:
        """`rank 2`, or the process of a host that has none."""
        return f"rank {self.rank}" if self.rank >= 0 else f"process {self.pid}"

    def told(self) -> dict[str, Any]:
        """For `--json`: nothing that does not hold for it."""
        said = {name: getattr(self, name) for name in ("pid", "rank", "state", "why", "number", "call")}
        return {**said, "collective": self.collective, "collective_timeouts_s": self.timeouts}


class Rank:
    """One host process of a session that is stepped with the others."""

    def __init__(self, control: RankControl) -> None:
        self.control, self.pid = control, control.pid
        self.told: dict[str, Any] = dict(_RUNNING)
        self.where: dict[str, Any] = {}
        self.is_awaited = True
        """False for one that did not come to the call of the others: it is in a collective, or does not load."""
        self.has_moved = False
        """False for one that has not been let go since the step began."""
        self.error = ""
        self._looked = self._asked_where = -AGAIN_S

    @property
    def is_paused(self) -> bool:
        """True while it is held."""
        return bool(self.told["state"] == "paused")

    @property
    def is_over(self) -> bool:
        """True when its process has ended or answers no more."""
        return bool(self.told["state"] == "ended")

    @property
    def rank(self) -> int:
        """Its tensor-parallel rank, -1 while that is not known."""
        return int(self.told.get("rank", -1))

    @property
    def number(self) -> int:
        """How many loader calls it has begun."""
        return int(self.told.get("number") or 0)

    @property
    def call(self) -> dict[str, Any] | None:
        """The loader call in which it is held, as every rank would tell it."""
        return self.told.get("call") if self.is_paused else None

    @property
    def has_stopped(self) -> bool:
        """True when it is held for a reason of its own that came up since the step began."""
        return self.is_paused and self.has_moved and self.why not in {TOGETHER, "start"}

    @property
    def why(self) -> str:
        """Why it is held, "" for one that is not."""
        return str(self.told.get("why") or "") if self.is_paused else ""

    def look(self, seconds: float = 0.0) -> None:
        """Ask where it is; a running one for so long as it may take to be held."""
        was_paused = self.is_paused
        if self.is_over or (was_paused and time.monotonic() - self._looked < AGAIN_S):
            return
        self._looked = time.monotonic()
        try:
            self.told = self.control.state() if was_paused else self.control.wait(seconds)
        except ControlError as error:
            self._lost(error)
        if self.is_paused:
            self.is_awaited, self.where = True, {**self.where, "collective": ""}
        elif was_paused:
            self.has_moved = True  # let go by somebody else

    def look_where(self) -> None:
        """Ask whether it waits for the others in a collective, and for how long it would."""
        if self.is_over or time.monotonic() - self._asked_where < AGAIN_S:
            return
        self._asked_where = time.monotonic()
        try:
            self.where = self.control.whereabouts()
        except ControlError as error:
            self._lost(error)

    def go(self, until: str, at_most: int | None) -> None:
        """Let it go on until then, and be held at its `at_most`-th loader call in any case."""
        try:
            self.control.run_together(until, at_most, goes_on=self.has_moved)
        except ControlError as error:
            self._lost(error)
            return
        self.told, self.has_moved = {**self.told, "state": "running", "call": None}, True
        self._asked_where = -AGAIN_S

    def do(self, act: str, *words: Any) -> None:
        """A request whose answer is of no interest; a host that is gone has done it."""
        try:
            getattr(self.control, act)(*words)
        except ControlError as error:
            if not error.is_gone:
                raise
            self._lost(error)

    def has_left(self, call: dict[str, Any]) -> bool:
        """True when it is past that call; one that has ended is past everything."""
        if self.is_over:
            return True
        try:
            return self.control.has_left(call)
        except ControlError as error:
            self._lost(error)
            return True

    def place(self, shown: Rank | None) -> RankPlace:
        """What there is to tell."""
        said, where = self.told, self.where
        timeouts = dict(where.get("timeouts") or {})
        collective = str(where.get("collective") or "")
        return RankPlace(
            self.pid, self.rank, said["state"], self.why, self.number, self.call, collective, timeouts, self is shown
        )

    def _lost(self, error: ControlError) -> None:
        if not error.is_gone:
            raise error
        self.told, self.error = {**self.told, "state": "ended", "call": None}, str(error)
