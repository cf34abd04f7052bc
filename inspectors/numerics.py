"""Numerics: statistics of every parameter once it is complete, and of what goes through the modules of a first pass."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any

from inspectors.probe.agent import Probe
from inspectors.probe.call import Call
from inspectors.probe.dispatch import is_torch_here
from inspectors.probe.events import ValueSummarized
from inspectors.probe.modulehooks import ModuleHooks, tensors_of, version_of
from inspectors.probe.numbers import Numbers, summarize
from inspectors.probe.tensors import dtype_name, has_memory, is_tensor, shape_of
from inspectors.probe.tracepoint import Tracepoint

_LOADED, _PROCESSED, _FORWARD = "weight.map", "weights.process", "forward.run"
"""The stages whose end a statistic describes."""

_SCALE_DTYPES = frozenset({"uint8", "float8_e8m0fnu"})
"""Of scales that are powers of two, stored as their exponents; every other scale is of floating point."""


class _ThreadState(threading.local):
    """How many `load_weights` this thread is inside of, and the pass whose modules it looks at."""

    def __init__(self) -> None:
        self.maps = 0
        self.passing: _Pass | None = None


class _Pass:
    """The first forward pass of a model on one rank. A tensor that passes on unchanged is read once."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.hooks: ModuleHooks | None = None
        self._known: dict[int, tuple[Any, int, Numbers]] = {}

    def numbers(self, tensor: Any) -> Numbers:
        """Its statistics, of which those of exactly this tensor, unchanged since, are known already."""
        known = self._known.get(id(tensor))
        if known is not None and known[0]() is tensor and known[1] == version_of(tensor):
            return known[2]
        found = summarize(tensor)
        if version_of(tensor) >= 0:
            self._known[id(tensor)] = (weakref.ref(tensor), version_of(tensor), found)
        return found


class NumericsInspector:
    """Reads whole tensors, so it works from level `values` on; nothing is read while a parameter is half filled."""

    stages = frozenset({_LOADED, _PROCESSED, _FORWARD})
    level = "values"
    tracepoints: Sequence[Tracepoint] = ()

    def start(self, probe: Probe) -> None:
        """Forget everything of an earlier probe."""
        self._probe, self._recorder = probe, probe.recorder
        self._state = _ThreadState()
        self._passed: weakref.WeakSet[Any] = weakref.WeakSet()

    def enter(self, call: Call) -> None:
        """Note a `load_weights`, which may hand over to that of a part; hook the modules of a first pass."""
        if call.tracepoint.stage == _LOADED:
            self._state.maps += 1
            call.kept[self] = None
        elif call.tracepoint.stage == _FORWARD:
            self._begin(call)

    def leave(self, call: Call) -> None:
        """Summarize what is complete now."""
        stage = call.tracepoint.stage
        if stage == _LOADED:
            self._ended(call)
            if not self._state.maps:
                self._parameters(call.get("model"), "", _LOADED, call.rank)
        elif stage == _PROCESSED:
            self._processed(call)
        elif self in call.kept:
            passing: _Pass = call.kept[self]
            self._unhook(call)
            self._activations(passing, "", "output", call.result)

    def failed(self, call: Call, error: BaseException) -> None:
        """What is half filled has no statistics; what went through the modules until now is told already."""
        del error
        self._ended(call)
        self._unhook(call)

    def _ended(self, call: Call) -> None:
        if call.tracepoint.stage == _LOADED and self in call.kept:
            del call.kept[self]
            self._state.maps -= 1

    # --- parameters

    def _processed(self, call: Call) -> None:
        layer = call.get("layer")
        name = self._probe.layers.of(layer) or str(call.get("module", "") or "")
        self._parameters(layer, name, _PROCESSED, call.rank)

    def _parameters(self, owner: Any, prefix: str, stage: str, rank: int) -> None:
        """All parameters of a model, or a layer's own."""
        named = getattr(owner, "named_parameters", None)
        for name, parameter in named(recurse=stage == _LOADED) if named is not None else ():
            if is_tensor(parameter) and has_memory(parameter):
                full_name = f"{prefix}.{name}" if prefix else name
                role = "scale" if is_scale(full_name, parameter) else "parameter"
                module = full_name.rpartition(".")[0]
                body = _summarized(parameter, summarize(parameter), module, role, parameter=full_name)
                self._recorder.point(body, rank, stage)

    # --- activations

    def _begin(self, call: Call) -> None:
        model = call.get("model")
        if self._state.passing is not None or not is_torch_here() or model in self._passed:
            return
        self._passed.add(model)
        passing = call.kept[self] = self._state.passing = _Pass(call.rank)
        passing.hooks = ModuleHooks(self._probe, self, model, partial(self._activations, passing))

    def _activations(self, passing: _Pass, module: str, role: str, value: Any) -> None:
        for index, tensor in enumerate(tensors_of(value)):
            if has_memory(tensor):
                body = _summarized(tensor, passing.numbers(tensor), module, role, index=index)
                self._recorder.point(body, passing.rank, _FORWARD)

    def _unhook(self, call: Call) -> None:
        passing = call.kept.pop(self, None)
        if passing is not None:
            self._state.passing = None
            if passing.hooks is not None:
                passing.hooks.remove()


def is_scale(name: str, parameter: Any) -> bool:
    """Whether a parameter holds scales: its name says so, and its dtype can hold them."""
    can_hold = parameter.dtype.is_floating_point or dtype_name(parameter) in _SCALE_DTYPES
    return "scale" in name.rpartition(".")[2] and can_hold


def _summarized(
    tensor: Any, said: Numbers, module: str, role: str, *, parameter: str = "", index: int = 0
) -> ValueSummarized:
    return ValueSummarized(
        parameter=parameter,
        absmax=said.absmax,
        mean=said.mean,
        rms=said.rms,
        nan_count=said.nan_count,
        inf_count=said.inf_count,
        zero_fraction=said.zero_fraction,
        role=role,
        module=module,
        dtype=dtype_name(tensor),
        shape=shape_of(tensor),
        minimum=said.minimum,
        maximum=said.maximum,
        subnormal_fraction=said.subnormal_fraction,
        saturated_fraction=said.saturated_fraction,
        index=index,
    )


INSPECTOR = NumericsInspector()
