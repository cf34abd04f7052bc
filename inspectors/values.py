"""Values: statistics of a parameter after each loader call that filled it."""

from __future__ import annotations

from collections.abc import Sequence

from inspectors.probe.agent import Probe
from inspectors.probe.call import Call
from inspectors.probe.events import ValueSummarized
from inspectors.probe.tensors import has_memory, is_tensor, statistics
from inspectors.probe.tracepoint import Tracepoint


class ValuesInspector:
    """Reads the whole parameter after a call, so it works from level `values` on."""

    stages = frozenset({"weight.load"})
    level = "values"
    tracepoints: Sequence[Tracepoint] = ()

    def start(self, probe: Probe) -> None:
        """Nothing to prepare."""

    def enter(self, call: Call) -> None:
        """Nothing to see before the parameter is filled."""

    def leave(self, call: Call) -> None:
        """Summarize; a loader inside another one leaves that to the outer call, which alone has a name."""
        parameter = call.get("parameter")
        if not is_tensor(parameter) or call.facts.get("is_nested") or not has_memory(parameter):
            return
        said = statistics(parameter)
        body = ValueSummarized(
            parameter=call.facts.get("parameter", ""),
            absmax=said["absmax"],
            mean=said["mean"],
            rms=said["rms"],
            nan_count=int(said["nan_count"]),
            inf_count=int(said["inf_count"]),
            zero_fraction=said["zero_fraction"],
        )
        call.probe.recorder.point(body, call.rank)

    def failed(self, call: Call, error: BaseException) -> None:
        """A parameter half filled has no statistics."""


INSPECTOR = ValuesInspector()
