"""One event as the reader gives it: the envelope, its body, and whatever this version does not know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

from inspectors.probe.events import Body

NOTHING: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True)
class UnknownBody(Body):
    """The facts of a kind that this version does not know."""

    kind: ClassVar[str] = "unknown"
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `position` counts from 0 over all streams in time order, `seq` from 1 inside its stream.

    `t_ns` is the host's monotonic clock, `dur_ns` is None while a span is open, `parent` is the seq of the enclosing
    span in the same stream (0: none), `rank` is -1 outside ranks. `extra` holds fields this version does not know.
    """

    position: int
    stream: int
    seq: int
    t_ns: int
    dur_ns: int | None
    kind: str
    stage: str
    parent: int
    rank: int
    body: Body
    extra: Mapping[str, object] = field(default_factory=lambda: NOTHING)

    @property
    def is_open(self) -> bool:
        """True for a span whose end is not recorded (yet)."""
        return self.dur_ns is None

    @property
    def ref(self) -> str:
        """The reference that `Session.find` takes: "#131", with the stream in front when it is not the first."""
        return f"#{self.seq}" if self.stream == 0 else f"#{self.stream}:{self.seq}"
