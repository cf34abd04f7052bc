"""Decisions: which modules stay unquantized and why, and which quantization method each module got."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inspectors.probe.agent import Probe
from inspectors.probe.call import Call
from inspectors.probe.events import MethodSelected, SkipDecided
from inspectors.probe.tensors import type_name
from inspectors.probe.tracepoint import Tracepoint


class DecisionsInspector:
    """Sees skip helpers and `get_quant_method`."""

    stages = frozenset({"method.select"})
    level = "calls"
    tracepoints: Sequence[Tracepoint] = ()

    def start(self, probe: Probe) -> None:
        """Nothing to prepare."""

    def enter(self, call: Call) -> None:
        """Name the module, should the decision fail."""
        call.facts["module"] = module = str(call.get("module", ""))
        call.probe.layers.note(call.get("layer"), module)

    def leave(self, call: Call) -> None:
        """Record what was decided."""
        recorder = call.probe.recorder
        if call.tracepoint.shows == "skip.decided":
            recorder.measured(_skip_decided(call), call.rank, call.start_ns, call.dur_ns)
        elif call.tracepoint.shows == "method.selected" and call.get("selected") is not None:
            recorder.measured(_method_selected(call), call.rank, call.start_ns, call.dur_ns)

    def failed(self, call: Call, error: BaseException) -> None:
        """The error itself is recorded by the probe."""


def _skip_decided(call: Call) -> SkipDecided:
    ignored = _texts(call.get("ignored"))
    tried = _texts(call.get("tried")) or (str(call.get("module", "")),)
    is_skipped = bool(call.get("is_skipped"))
    return SkipDecided(
        module=str(call.get("module", "")),
        is_skipped=is_skipped,
        matched_entry=matched_entry(ignored, tried) if is_skipped else -1,
        ignored=ignored,
        tried=tried,
        expansion_source=str(call.get("expansion_source", "") or ""),
        rule=call.tracepoint.target.partition(":")[2],
        where=call.where,
    )


def matched_entry(ignored: tuple[str, ...], tried: tuple[str, ...]) -> int:
    """Index of the list's first entry that names one of `tried`, or a module around it; -1 for none.

    Entries are compared from dot to dot, as engines do; `re:` patterns and globs are left to the engine.
    """
    for place, entry in enumerate(ignored):
        if any(entry == name for name in tried):
            return place
    for place, entry in enumerate(ignored):
        if entry and any(f".{entry}." in f".{name}." for name in tried):
            return place
    return -1


def _method_selected(call: Call) -> MethodSelected:
    return MethodSelected(
        module=str(call.get("module", "")),
        layer_class=type_name(call.get("layer")),
        config_class=type_name(call.get("config")),
        method=type_name(call.get("selected")),
        where=call.where,
    )


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(str(value) for value in values) if isinstance(values, (list, tuple, set, frozenset)) else ()


INSPECTOR = DecisionsInspector()
