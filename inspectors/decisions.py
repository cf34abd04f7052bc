"""Decisions: which modules stay unquantized and why, which quantization method each got, which kernels it will run."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from inspectors.probe.agent import Probe
from inspectors.probe.call import Call
from inspectors.probe.events import KernelChosen, MethodSelected, SkipDecided
from inspectors.probe.tensors import type_name
from inspectors.probe.tracepoint import Tracepoint

_BUILDING = frozenset({"layer.named", "method.selected", "weights.created"})


class _ThreadState(threading.local):
    """The modules that this thread is building, innermost last: kernels may be chosen meanwhile for "this layer"."""

    def __init__(self) -> None:
        self.modules: list[str] = []


class DecisionsInspector:
    """Sees skip helpers, `get_quant_method` and the functions that choose among kernels."""

    stages = frozenset({"method.select", "kernel.select", "weights.create"})
    level = "calls"
    tracepoints: Sequence[Tracepoint] = ()

    def start(self, probe: Probe) -> None:
        """Forget everything of an earlier probe."""
        del probe
        self._state = _ThreadState()

    def enter(self, call: Call) -> None:
        """Name the module, should the decision fail."""
        layer, modules = call.get("layer"), self._state.modules
        module = str(call.get("module", "") or call.probe.layers.of(layer) or (modules[-1] if modules else ""))
        call.facts["module"] = module
        call.probe.layers.note(layer, module)
        if "modules" in call.tracepoint.arguments:
            call.kept["modules"] = call.get("modules")
        if call.tracepoint.shows in _BUILDING:
            call.kept[self] = module
            modules.append(module)

    def leave(self, call: Call) -> None:
        """Record what was decided."""
        self._ended(call)
        recorder = call.probe.recorder
        if call.tracepoint.shows == "skip.decided" and call.get("is_decision", True):
            recorder.measured(_skip_decided(call), call.rank, call.start_ns, call.dur_ns)
        elif call.tracepoint.shows == "method.selected" and call.get("selected") is not None:
            recorder.measured(_method_selected(call), call.rank, call.start_ns, call.dur_ns)
            for body in _replaced(call):
                recorder.point(body, call.rank)
        elif call.tracepoint.shows == "kernel.chosen" and call.get("kernel") is not None:
            recorder.measured(_kernel_chosen(call), call.rank, call.start_ns, call.dur_ns)

    def failed(self, call: Call, error: BaseException) -> None:
        """The error itself is recorded by the probe."""
        del error
        self._ended(call)

    def _ended(self, call: Call) -> None:
        if self in call.kept:
            self._state.modules.remove(call.kept.pop(self))


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

    Entries are compared from dot to dot, as engines do, then as patterns of `re:`; globs are left to the engine.
    """
    for place, entry in enumerate(ignored):
        if any(entry == name for name in tried):
            return place
    for place, entry in enumerate(ignored):
        if entry and any(f".{entry}." in f".{name}." for name in tried):
            return place
    for place, entry in enumerate(ignored):
        if entry.startswith("re:") and any(_matches(entry.removeprefix("re:"), name) for name in tried):
            return place
    return -1


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.match(pattern, name) is not None
    except re.error:
        return False


def _method_selected(call: Call) -> MethodSelected:
    return MethodSelected(
        module=str(call.get("module", "")),
        layer_class=type_name(call.get("layer")),
        config_class=type_name(call.get("config")),
        method=type_name(call.get("selected")),
        where=call.where,
    )


def _replaced(call: Call) -> Iterator[MethodSelected]:
    """One choice for each module that an engine, deciding for the whole model, made another than it was."""
    before = call.kept.pop("modules", None) or {}
    after = call.get("modules") or {} if before else {}
    whole = _method_selected(call)
    for name, made in after.items():
        if before.get(name, made) != made:
            yield replace(whole, module=name, layer_class=before[name], method=made)


def _kernel_chosen(call: Call) -> KernelChosen:
    return KernelChosen(
        module=call.facts["module"],
        op=str(call.get("op", "") or ""),
        kernel=str(call.get("kernel")),
        refused=_texts(call.get("refused")),
        where=call.where,
    )


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(str(value) for value in values) if isinstance(values, (list, tuple, set, frozenset)) else ()


INSPECTOR = DecisionsInspector()
