"""The contract of an inspector: the constant INSPECTOR of inspectors/<name>.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from inspectors.probe.tracepoint import Tracepoint

if TYPE_CHECKING:
    from inspectors.probe.agent import Probe
    from inspectors.probe.call import Call


class Inspector(Protocol):
    """Turns calls at the tracepoints of its `stages` into events.

    `level` is the lowest level at which it works. `tracepoints` are functions of libraries below every engine which
    it wants to see (a kernel language's launch). What a method raises disables this inspector and nothing else.
    """

    stages: frozenset[str]
    level: str
    tracepoints: Sequence[Tracepoint]

    def start(self, probe: Probe) -> None:
        """Called once before any engine code runs."""

    def enter(self, call: Call) -> None:
        """The engine is about to run the function; arguments are known."""

    def leave(self, call: Call) -> None:
        """The function returned; `call.result` and, where asked for, its locals are known."""

    def failed(self, call: Call, error: BaseException) -> None:
        """The function raised `error`, which goes on to the host unchanged."""
