"""Memory: what the process and its device hold at the edges of every stage, and every few milliseconds between them."""

from __future__ import annotations

from collections.abc import Sequence

from inspectors.probe.agent import Probe
from inspectors.probe.call import Call
from inspectors.probe.sampler import Sampler
from inspectors.probe.stages import includes
from inspectors.probe.tracepoint import Tracepoint

_EDGES = frozenset({"checkpoint.open", "weight.map", "weights.process", "model.ready", "forward.run"})
_FREQUENT = frozenset({"weights.process"})
_MIN_AGE_NS = 2_000_000
"""Of stages with a call for every module, an edge is left out when a sample has just been taken."""


class MemoryInspector:
    """Samples at enter and leave; at level `values` also around every loader call, with the cause "call"."""

    stages = _EDGES
    level = "calls"
    tracepoints: Sequence[Tracepoint] = ()

    def start(self, probe: Probe) -> None:
        """No thread is started before an engine enters a stage."""
        self.stages = _EDGES | {"weight.load"} if includes(probe.level, "values") else _EDGES
        self._sampler = Sampler(probe, self)

    def enter(self, call: Call) -> None:
        """The stage begins."""
        if not _is_loader_call(call):
            self._sampler.opened()
        self._sample(call)

    def leave(self, call: Call) -> None:
        """The stage has ended."""
        self._sample(call)
        if not _is_loader_call(call):
            self._sampler.closed()

    def failed(self, call: Call, error: BaseException) -> None:
        """Running out of memory is what one wants to see most."""
        del error
        self.leave(call)

    def _sample(self, call: Call) -> None:
        stage = call.tracepoint.stage
        if stage in _FREQUENT and self._sampler.age_ns < _MIN_AGE_NS:
            return
        self._sampler.take("call" if _is_loader_call(call) else "stage", stage, call.rank)


def _is_loader_call(call: Call) -> bool:
    return call.tracepoint.stage == "weight.load"


INSPECTOR = MemoryInspector()
