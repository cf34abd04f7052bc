"""Where a host can be held: decides at each event whether to pause, and keeps the thread until it may go on."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inspectors.probe.callplaces import CallPlace, CallPlaces
from inspectors.probe.conditions import Condition, ConditionError, parse
from inspectors.probe.control import ControlServer
from inspectors.probe.events import (
    NO_RANK,
    Body,
    KernelLaunched,
    LoaderCalled,
    MethodSelected,
    ProcessStarted,
    SkipDecided,
    StageFailed,
    TensorRead,
    ValueSummarized,
    WeightsCreated,
    WeightsProcessed,
)
from inspectors.probe.recorder import Recorder
from inspectors.probe.settings import Settings
from inspectors.probe.together import is_stepped

FIRST_CLIENT_SECONDS = 120.0
TOGETHER = "together"
"""Why a rank is held that has no reason of its own: another rank is, or may be, at this call."""
UNTIL = ("next", "any", "out", "parameter", "layer", "breakpoint")
_BREAKING = (
    KernelLaunched, MethodSelected, SkipDecided, StageFailed, TensorRead, ValueSummarized, WeightsCreated,
    WeightsProcessed,
)  # fmt: skip


@dataclass(frozen=True)
class AtHand:
    """The tensors of the loader call that a thread is in."""

    source_name: str
    source: Any
    parameter_name: str
    parameter: Any


@dataclass(frozen=True)
class Pause:
    """Where a thread is held."""

    seq: int
    why: str
    breakpoint: str | None = None
    enclosing: int = 0
    at_hand: AtHand | None = None
    place: CallPlace | None = None
    rank: int = NO_RANK


class Gate:
    """The state of control over one host process: running, paused or let go. Host threads wait in here."""

    def __init__(self, recorder: Recorder, settings: Settings, rank: Callable[[], int]) -> None:
        self._recorder, self._settings, self._rank = recorder, settings, rank
        self._start_afresh()
        os.register_at_fork(after_in_child=self._start_afresh)

    def _start_afresh(self) -> None:
        self._changed = threading.Condition()
        self._server: ControlServer | None = None
        self._is_open = False
        self._clients = 0
        self._pause: Pause | None = None
        self._until = "any" if self._settings.is_paused_at_start else "breakpoint"
        self._at_most: int | None = None
        self._is_at_start = self._settings.is_paused_at_start
        self._last = Pause(0, "")
        self._conditions: tuple[Condition, ...] = ()
        self._in_call = threading.local()
        self.places = CallPlaces()
        self._is_ended = False
        self._recorder.on_event = self._recorder.on_end = None

    @property
    def is_open(self) -> bool:
        """True once this process was asked to listen."""
        return self._is_open

    def serve(self) -> None:
        """Open the control socket; from here on the host can be paused."""
        if self._is_open:
            return
        self._is_open = True
        try:
            self._conditions = tuple(parse(text) for text in self._settings.breakpoints)
        except ConditionError:
            self._conditions = ()
        if self._settings.hold_seconds > 0:
            self._conditions = (*self._conditions, parse("exception"))
        if is_stepped(self._settings.folder):
            self._until, self._is_at_start = "any", True
        self._server = ControlServer.open(self._settings.folder, self, self._settings.listen)
        if self._server is not None and (self._is_at_start or self._conditions):
            self._watch()

    @property
    def folder(self) -> Path:
        """The session that this process records into."""
        return self._settings.folder

    def move_to(self, folder: Path) -> None:
        """The session goes on in another folder: leave the note of how to reach this host there."""
        self._settings = replace(self._settings, folder=folder)
        if self._server is not None:
            self._server.move_to(folder)

    # --- host threads

    def call_begins(self, body: LoaderCalled, rank: int, at_hand: Callable[[], AtHand]) -> CallPlace:
        """The calling thread is in a loader call; `at_hand` tells its tensors where it is held."""
        place = self.places.begun(body, rank)
        self._in_call.at_hand, self._in_call.place = at_hand, place
        return place

    def call_is_over(self, place: CallPlace) -> None:
        """The calling thread is out of that loader call."""
        self.places.ended(place)
        self._in_call.at_hand = self._in_call.place = None

    def _at_hand(self) -> AtHand | None:
        ask: Callable[[], AtHand] | None = getattr(self._in_call, "at_hand", None)
        return ask() if ask is not None else None

    def about_to_return(self, seq: int, body: LoaderCalled, place: CallPlace) -> None:
        """A loader call has done its work and not yet returned; the place where stepping stops."""
        if self._recorder.on_event is None:
            return
        until, last = self._until, self._last.at_hand
        was = last.parameter_name if last is not None else ""
        is_wanted = (
            until == "next"
            or (until == "parameter" and body.parameter != was)
            or (until == "layer" and layer_of(body.parameter) != layer_of(was))
        )
        hit = self._hit(body, place.rank)
        if is_wanted or hit is not None:
            self._hold(Pause(seq, _why(self._conditions, hit), hit), place.rank, place)
        elif self._at_most is not None and place.number >= self._at_most:
            self._hold(Pause(seq, TOGETHER), place.rank, place)

    def _on_event(self, seq: int, body: Body, rank: int) -> None:
        if isinstance(body, ProcessStarted) or (not body.stage and not isinstance(body, StageFailed)):
            return
        is_breaking = isinstance(body, _BREAKING)
        if self._until != "any" and not (is_breaking and self._conditions):
            return
        hit = self._hit(body, rank) if is_breaking else None
        if self._until == "any" or hit is not None:
            why = "start" if self._is_at_start else _why(self._conditions, hit)
            why = "exception" if isinstance(body, StageFailed) and hit == "exception" else why
            self._hold(Pause(seq, why, hit), rank, getattr(self._in_call, "place", None))

    def _on_end(self, seq: int, body: Body, rank: int) -> None:
        del body
        if self._until == "out" and seq == self._last.enclosing:
            self._hold(Pause(seq, "step"), rank)

    def _hit(self, body: Body, rank: int) -> str | None:
        return next((c.text for c in self._conditions if c.holds(body, rank)), None)

    def _hold(self, pause: Pause, rank: int, place: CallPlace | None = None) -> None:
        stack = [seq for seq in self._recorder.open_spans() if seq != pause.seq]
        at_hand = self._at_hand() if place is not None else None
        rank = self._rank() if rank == NO_RANK else rank
        pause = replace(pause, enclosing=stack[-1] if stack else 0, at_hand=at_hand, place=place, rank=rank)
        self._recorder.flush()
        patience = self._patience(pause)
        give_up = time.monotonic() + patience
        with self._changed:
            while self._pause is not None:
                self._changed.wait(1.0)  # another thread is held: the whole host is
            if self._recorder.on_event is None:
                return
            self._pause, self._is_at_start, self._at_most = pause, False, None
            self._changed.notify_all()
            while self._pause is pause:
                self._changed.wait(1.0)
                if self._clients:
                    give_up = time.monotonic() + patience
                elif time.monotonic() > give_up:
                    self._let_go()

    def _patience(self, pause: Pause) -> float:
        """How long a held host waits without a client, in seconds; at an exception it says where it waits."""
        if pause.why != "exception" or not self._settings.hold_seconds:
            return FIRST_CLIENT_SECONDS
        if sys.stderr is not None and not self._clients:
            print(
                f"loadscope: held at the exception for {self._settings.hold_seconds:g} s: "
                f"loadscope attach {self._settings.folder}",
                file=sys.stderr,
                flush=True,
            )
        return self._settings.hold_seconds

    # --- clients

    def client_came(self) -> None:
        """A client was let in."""
        with self._changed:
            self._clients += 1
            self._watch()

    def client_left(self) -> None:
        """A client is gone; with the last one the host is let go, unless it is held for whoever comes."""
        with self._changed:
            self._clients -= 1
            is_held = self._pause is not None and self._pause.why == "exception" and self._settings.hold_seconds > 0
            if self._clients <= 0 and not is_held:
                self._let_go()

    def state(self) -> dict[str, Any]:
        """The answer to `state`."""
        with self._changed:
            pause = self._pause
            name = "paused" if pause is not None else "ended" if self._is_ended else "running"
            shown, last = pause or self._last, self.places.last
            said = {"state": name, "seq": shown.seq, "why": shown.why, "breakpoint": shown.breakpoint}
            if pause is None or pause.place is None:
                rank = pause.rank if pause is not None else NO_RANK
                return {**said, **_rank_and_number(rank, last), "call": None}
            return {**said, "rank": pause.place.rank, "number": pause.place.number, "call": pause.place.told()}

    def wait(self, seconds: float) -> dict[str, Any]:
        """The state as soon as it is paused or ended, or after `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self._pause is not None or self._is_ended, max(0.0, min(seconds, 3600.0)))
        return self.state()

    def run(self, until: str, at_most: int | None = None, *, goes_on: bool = False) -> None:
        """Let the held thread go on until the next place of that sort; ValueError for an unknown one.

        It is held at the `at_most`-th loader call of its rank in any case. With `goes_on` a step that was held on its
        way goes on: "parameter" and "layer" are counted from where it began.
        """
        if until not in UNTIL:
            raise ValueError(f"cannot run until {until!r}; known are {', '.join(UNTIL)}")
        with self._changed:
            self._watch()
            if self._pause is not None and not goes_on:
                self._last = self._pause
            self._until, self._at_most = until, at_most
            self._pause = None
            self._changed.notify_all()

    def hold_at(self, number: int) -> None:
        """Hold a running host at the `number`-th loader call of its rank, or at the next one when it is past that."""
        with self._changed:
            self._watch()
            if self._pause is None:
                self._at_most = number

    def pause(self) -> None:
        """Hold the host at its next event."""
        with self._changed:
            self._watch()
            if self._pause is None:
                self._until = "any"

    def release(self) -> None:
        """Let the host go, without further pauses, until a client asks again."""
        with self._changed:
            self._let_go()

    def set_breakpoints(self, texts: list[str]) -> None:
        """Replace the conditions; ConditionError when one cannot be read."""
        self._conditions = tuple(parse(text) for text in texts)

    def at_hand(self) -> AtHand | None:
        """The tensors of the call that is held."""
        return self._pause.at_hand if self._pause is not None else None

    def end(self) -> None:
        """The host ends: wake whoever waits."""
        with self._changed:
            self._is_ended = True
            self._let_go()
        self._recorder.flush()

    def _watch(self) -> None:
        self._recorder.on_event, self._recorder.on_end = self._on_event, self._on_end

    def _let_go(self) -> None:
        self._recorder.on_event = self._recorder.on_end = None
        if self._pause is not None:
            self._last = Pause(self._pause.seq, self._pause.why, self._pause.breakpoint, self._pause.enclosing)
        self._until, self._pause, self._conditions, self._is_at_start = "breakpoint", None, (), False
        self._at_most = None
        self._changed.notify_all()


def layer_of(parameter: str) -> str:
    """`model.layers.3.mlp.gate.weight` → `model.layers.3`; the module for a name without a layer number."""
    names = parameter.split(".")
    numbered = next((place for place, name in enumerate(names) if name.isdigit()), None)
    return ".".join(names[: numbered + 1] if numbered is not None else names[:-1])


def _rank_and_number(rank: int, last: CallPlace | None) -> dict[str, int]:
    """The rank of a host that is not held in a loader call, and how many of them it has begun."""
    if last is None:
        return {"rank": rank, "number": 0}
    return {"rank": last.rank if rank == NO_RANK else rank, "number": last.number}


def _why(conditions: tuple[Condition, ...], hit: str | None) -> str:
    if hit is None:
        return "step"
    return f"breakpoint {[c.text for c in conditions].index(hit) + 1}"
