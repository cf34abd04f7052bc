"""Weights: how parameters are created, which loader filled them with what, and what the engine says at the end."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from inspectors.probe.agent import Probe
from inspectors.probe.body import Body
from inspectors.probe.call import Call
from inspectors.probe.dispatch import Run, WatchedOperations, is_torch_here
from inspectors.probe.events import (
    LoaderCalled,
    ModelLoaded,
    ParameterRegistered,
    ShardSplit,
    WeightsCreated,
    WeightsMapped,
    WeightsProcessed,
)
from inspectors.probe.fingerprints import Trust
from inspectors.probe.gate import AtHand
from inspectors.probe.lineage import identity_of
from inspectors.probe.loaders import KnownParameter, ParameterRegistry, describe_loader
from inspectors.probe.loadwatch import Ledger, SplitWatch, note_taken
from inspectors.probe.names import TensorNames
from inspectors.probe.recorder import with_outcome
from inspectors.probe.repacks import Repacks
from inspectors.probe.splits import Cut
from inspectors.probe.stages import includes
from inspectors.probe.tensors import dtype_name, is_tensor, shape_of, size_bytes, type_name
from inspectors.probe.threads import Around, Followed
from inspectors.probe.tracepoint import Tracepoint


@dataclass
class _LoaderCall:
    """A loader call between its entry and its return."""

    seq: int
    body: LoaderCalled
    parameter: Any
    storage: int
    mode: WatchedOperations | None = None
    watch: SplitWatch | None = None


class _ThreadState(threading.local):
    def __init__(self) -> None:
        self.calls: list[_LoaderCall] = []
        self.maps = self.processed = 0


class WeightsInspector:
    """Sees parameters from their creation to the engine's own report."""

    stages = frozenset({"tensor.read", "weights.create", "weight.map", "weight.load", "weights.process", "model.ready"})
    level = "calls"
    tracepoints: Sequence[Tracepoint] = ()

    def start(self, probe: Probe) -> None:
        """Forget everything of an earlier probe."""
        self._probe, self._recorder = probe, probe.recorder
        self._parameters, self._names = ParameterRegistry(probe), TensorNames()
        self._state = _ThreadState()
        self._has_ledger = includes(probe.level, "ledger")
        self._repacks = Repacks()
        self._trust, self._followed = Trust(), Followed(self._around)
        self._concerns: dict[Any, bool] = {}  # by operator; asked for every operator inside every loader call

    def enter(self, call: Call) -> None:
        """Open the span of what is about to run."""
        act = {
            "weights.created": self._creating,
            "weights.mapped": self._mapping,
            "loader.called": self._loading,
            "weights.processed": self._processing,
        }.get(call.tracepoint.shows)
        if act is not None:
            act(call)

    def leave(self, call: Call) -> None:
        """Close the span, or note what a function without one gave."""
        shows = call.tracepoint.shows
        if shows == "tensor.read":
            name, tensor = str(call.get("name", "")), call.get("tensor")
            self._names.note(name, tensor)
            if self._has_ledger and is_tensor(tensor):
                self._parameters.memory.read(name, tensor)
        elif shows == "tensor.rearranged":
            made = call.get("tensor")
            self._names.note_rearranged(made)
            if self._has_ledger and is_tensor(made) and call.get("order") is not None:
                note_taken(self._parameters.memory, made, call.get("source"), call.get("dim", 0), call.get("order"))
        elif shows == "model.loaded":
            self._recorder.point(_model_loaded(call), call.rank)
        elif shows == "loader.called":
            self._loaded(call, "returned")
        elif shows == "weights.mapped":
            self._mapped(call)
        elif self in call.kept:
            self._processed(call)
            self._recorder.end(call.kept[self])

    def failed(self, call: Call, error: BaseException) -> None:
        """Close what is open; the error itself is recorded by the probe."""
        del error
        if call.tracepoint.shows == "loader.called":
            self._loaded(call, "raised")
        elif call.tracepoint.shows == "model.loaded":
            if call.get("model") is not None:  # an engine that refuses an incomplete model
                self._recorder.point(_model_loaded(call), call.rank)
        elif call.tracepoint.shows == "weights.mapped":
            self._mapped(call)
        elif self in call.kept:
            self._processed(call)
            self._recorder.end(call.kept[self])

    # --- creation and processing

    def _creating(self, call: Call) -> None:
        call.facts["module"] = module = self._module_of(call)
        sizes = call.get("output_partition_sizes") or ()
        body = WeightsCreated(
            module=module,
            method=type_name(call.get("method")),
            input_size_per_partition=int(call.get("input_size_per_partition") or 0),
            output_partition_sizes=tuple(int(size) for size in sizes),
            params_dtype=str(call.get("params_dtype", "")).removeprefix("torch."),
            where=call.where,
        )
        call.kept[self] = self._recorder.begin(body, call.rank)

    def _processing(self, call: Call) -> None:
        call.facts["module"] = module = self._module_of(call)
        body = WeightsProcessed(module=module, method=type_name(call.get("method")), where=call.where)
        call.kept[self] = self._recorder.begin(body, call.rank)
        layer = call.get("layer")
        if self._has_ledger and layer is not None and is_torch_here():
            processing = self._repacks.begin(module, layer)
            mode = WatchedOperations(self._runner(processing.watch)) if not self._state.processed else None
            self._state.processed += 1
            call.kept[self._repacks] = processing, mode
            if mode is not None:
                mode.enter()

    def _processed(self, call: Call) -> None:
        """Tell what post-processing made of the layer's parameters; of a method that calls another, both do."""
        processing, mode = call.kept.pop(self._repacks, (None, None))
        if processing is None:
            return
        self._state.processed -= 1
        if mode is not None:
            mode.leave()
        for repacked in self._repacks.ended(processing):
            self._recorder.point(repacked, call.rank)

    def _module_of(self, call: Call) -> str:
        return str(call.get("module", "") or self._probe.layers.of(call.get("layer")))

    # --- load_weights

    def _mapping(self, call: Call) -> None:
        self._state.maps += 1
        call.kept["is_counted"] = True
        if self._state.maps > 1:
            return  # a model that hands over to the load_weights of its parts
        if self._has_ledger:
            self._followed.begin()
        model = call.get("model")
        built_as = self._probe.layers.note_model(model)
        parameters = list(_parameters(model))
        call.kept[self] = self._recorder.begin(WeightsMapped(type_name(model), len(parameters)), call.rank)
        for name, parameter in parameters:
            known = self._parameters.register(name, parameter)
            body = _registered(known, parameter, built_as.get(name.rpartition(".")[0], ""))
            self._recorder.point(body, call.rank)

    def _mapped(self, call: Call) -> None:
        if call.kept.pop("is_counted", False):
            self._state.maps -= 1
            if not self._state.maps and self._has_ledger:
                self._followed.end()
        if self in call.kept:
            self._recorder.end(call.kept[self])

    # --- one loader call

    def _loading(self, call: Call) -> None:
        parameter, tensor = call.get("parameter"), call.get("tensor")
        if any(one.parameter is parameter for one in self._state.calls):
            self._repeat_facts(call)  # a loader that ends in another one: it is the same call
            call.facts["is_nested"] = "yes"
            return
        noted = self._names.of(tensor)
        known = self._parameters.known(parameter) or _stranger(parameter)
        function = getattr(call.tracepoint, "target", "") != ":" or not known.loader
        loader, where = describe_loader(call.binding.function) if function else (known.loader, known.where)
        body = LoaderCalled(
            checkpoint_name=noted.name if noted is not None else "",
            parameter=known.name,
            parameter_class=known.parameter_class,
            parameter_dtype=known.dtype,
            parameter_shape=known.shape,
            tensor_dtype=dtype_name(tensor),
            tensor_shape=shape_of(tensor),
            tensor_bytes=size_bytes(tensor),
            shard_id=_shown_id(call.get("shard_id")),
            expert_id=_expert(call.get("expert_id")),
            loader=loader,
            where=where,
        )
        storage = identity_of(parameter)
        active = _LoaderCall(self._recorder.begin(body, call.rank), body, parameter, storage)
        self._state.calls.append(active)
        call.kept[self] = active
        self._repeat_facts(call)
        self._probe.gate.hold_at_hand(AtHand(body.checkpoint_name, tensor, body.parameter, parameter))
        if is_tensor(tensor) and is_torch_here():
            active.watch = self._watch(tensor, noted, active, call.rank)
            active.mode = WatchedOperations(self._runner(active.watch))
            active.mode.enter()

    def _repeat_facts(self, call: Call) -> None:
        body = self._state.calls[-1].body
        module, _, _ = body.parameter.rpartition(".")
        call.facts.update(module=module, parameter=body.parameter, checkpoint_name=body.checkpoint_name)

    def _watch(self, tensor: Any, noted: Any, active: _LoaderCall, rank: int) -> SplitWatch:
        body = active.body

        def on_cut(cut: Cut) -> None:
            split = ShardSplit(
                body.parameter, body.checkpoint_name, cut.dim, cut.start, cut.length, cut.size, cut.operation
            )
            self._recorder.point(split, rank)

        def on_write(written: Body) -> None:
            self._recorder.point(written, rank)

        if not self._has_ledger:
            return SplitWatch(tensor, on_cut)
        look_again = lambda: self._follow_memory(active, rank)  # noqa: E731 - the fourth of four callbacks
        ledger = Ledger(tensor, noted, on_cut, on_write, self._parameters.memory, look_again, active.parameter)
        ledger.guard(self._trust, body.loader, body.parameter)
        return ledger

    def _follow_memory(self, active: _LoaderCall, rank: int) -> None:
        """A loader gave its parameter other memory, or its first: note where, and its shape if that is new."""
        storage = identity_of(active.parameter)
        if storage == active.storage:
            return
        active.storage = storage
        self._parameters.note_memory(active.body.parameter, active.parameter)
        if isinstance(active.watch, Ledger):
            active.watch.rebound(active.body.parameter, active.parameter)
        shape = shape_of(active.parameter)
        if shape != active.body.parameter_shape:
            known = self._parameters.reshaped(active.parameter)
            active.body = replace(active.body, parameter_shape=shape)
            if known is not None:
                self._recorder.point(_registered(known, active.parameter), rank)

    def _runner(self, watch: SplitWatch) -> Run:
        probe, concerns = self._probe, self._concerns

        def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            try:
                out = func(*args, **kwargs)
            except BaseException:
                with probe.guarded(self):
                    watch.raised(func, args, kwargs)
                raise
            is_wanted = concerns.get(func)
            if is_wanted is None:
                is_wanted = concerns[func] = hasattr(func, "_schema") and watch.concerns(func)
            if is_wanted and not probe.is_ours:
                with probe.guarded(self):
                    watch.saw(func, args, kwargs, out)
            return out

        return run

    def _around(self) -> Around | None:
        """How this thread's loader call is taken along into another one; None outside of any."""
        active = self._state.calls[-1] if self._state.calls else None
        if self._probe.is_ours or active is None or not isinstance(active.watch, Ledger):
            return None
        watch = active.watch
        watch.is_handed_on = True

        def around(function: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(function)
            def run(*args: Any, **kwargs: Any) -> Any:
                mode = WatchedOperations(self._runner(watch))
                self._state.calls.append(active)
                self._recorder.adopt(active.seq)
                mode.enter()
                try:
                    return function(*args, **kwargs)
                finally:
                    mode.leave()
                    self._recorder.abandon(active.seq)
                    self._state.calls.remove(active)

            return run

        return around

    def _loaded(self, call: Call, outcome: str) -> None:
        active: _LoaderCall | None = call.kept.get(self)
        if active is None:
            return
        if active.mode is not None:
            active.mode.leave()
        self._state.calls.remove(active)
        self._follow_memory(active, call.rank)
        if active.watch is not None:
            active.watch.ended()
        body = with_outcome(active.body, outcome)
        if outcome == "returned":
            self._probe.gate.about_to_return(active.seq, body, call.rank)
        self._probe.gate.hold_at_hand(None)
        self._recorder.end(active.seq, body)


def _parameters(model: Any) -> Iterator[tuple[str, Any]]:
    """Parameters, and those buffers that have a loader, by full name."""
    named = getattr(model, "named_parameters", None)
    buffers = getattr(model, "named_buffers", None)
    held = ((name, one) for name, one in (buffers() if buffers else ()) if hasattr(one, "weight_loader"))
    return chain(named() if named else (), held)


def _registered(known: KnownParameter, parameter: Any, built_as: str = "") -> ParameterRegistered:
    return ParameterRegistered(
        parameter=known.name,
        parameter_class=known.parameter_class,
        dtype=known.dtype,
        shape=known.shape,
        size_bytes=size_bytes(parameter),
        loader=known.loader,
        where=known.where,
        built_as=built_as,
    )


def _stranger(parameter: Any) -> KnownParameter:
    """A parameter that was not there when load_weights began."""
    name = str(getattr(parameter, "full_name", "") or getattr(parameter, "name", "") or "")
    return KnownParameter(name, type_name(parameter), dtype_name(parameter), shape_of(parameter), "", "")


def _shown_id(shard_id: Any) -> str:
    return "" if shard_id is None else repr(shard_id)


def _expert(expert_id: Any) -> int:
    return int(expert_id) if isinstance(expert_id, int) else -1


def _model_loaded(call: Call) -> ModelLoaded:
    count = call.get("parameters")
    count = len(list(_parameters(call.get("model")))) if count is None else int(count)
    filled, used = (tuple(str(name) for name in call.get(key) or ()) for key in ("never_filled", "never_used"))
    has_report = "never_filled" in call.tracepoint.arguments
    return ModelLoaded(parameters=count, never_filled=filled, never_used=used, has_report=has_report)


INSPECTOR = WeightsInspector()
