"""Timing: what each stage cost besides its time: CPU of its thread and of the process, bytes read, faults, waits."""

from __future__ import annotations

from collections.abc import Sequence

from inspectors.probe.agent import Probe
from inspectors.probe.call import Call
from inspectors.probe.events import StageTimed
from inspectors.probe.tracepoint import Tracepoint
from inspectors.probe.usage import UNKNOWN, spent

_PER_MODULE = frozenset({"weights.process"})
"""Stages with a call for every module, of which only the CPU time is taken."""


class TimingInspector:
    """One event a call, when it is over: a span with the differences of what was used."""

    stages = frozenset({"checkpoint.open", "weight.map", "weights.process", "model.ready", "forward.run"})
    level = "calls"
    tracepoints: Sequence[Tracepoint] = ()

    def start(self, probe: Probe) -> None:
        """Nothing is kept between calls."""

    def enter(self, call: Call) -> None:
        """Note what was used until here."""
        call.kept[self] = spent(with_reads=call.tracepoint.stage not in _PER_MODULE)

    def leave(self, call: Call) -> None:
        """Record what the call has used."""
        before = call.kept.get(self)
        if before is None:
            return
        after = spent(with_reads=before.read_bytes != UNKNOWN)
        used = {
            name: getattr(after, name) - value if value != UNKNOWN else UNKNOWN for name, value in vars(before).items()
        }
        stage = call.tracepoint.stage
        call.probe.recorder.measured(StageTimed(of_stage=stage, **used), call.rank, call.start_ns, call.dur_ns)

    def failed(self, call: Call, error: BaseException) -> None:
        """A stage that failed has cost something all the same."""
        del error
        self.leave(call)


INSPECTOR = TimingInspector()
