"""Weights: how parameters are created, which loader filled them with what, and what the engine says at the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from inspectors.probe.agent import Probe
from inspectors.probe.call import Call
from inspectors.probe.events import ModelLoaded, WeightsCreated, WeightsMapped, WeightsProcessed
from inspectors.probe.loadercalls import LoaderCalls, registered
from inspectors.probe.loaders import ParameterRegistry
from inspectors.probe.loadwatch import note_taken
from inspectors.probe.names import TensorNames
from inspectors.probe.partreads import cuts_of, note_part, part_of
from inspectors.probe.repackedcalls import RepackedCalls
from inspectors.probe.stages import includes
from inspectors.probe.tensors import is_tensor, local_part, type_name
from inspectors.probe.tracepoint import Tracepoint


class _ThreadState(threading.local):
    def __init__(self) -> None:
        self.maps = 0


class WeightsInspector:
    """Sees parameters from their creation to the engine's own report."""

    stages = frozenset({"tensor.read", "weights.create", "weight.map", "weight.load", "weights.process", "model.ready"})
    level = "calls"
    tracepoints: Sequence[Tracepoint] = ()

    def start(self, probe: Probe) -> None:
        """Forget everything of an earlier probe."""
        self._probe, self._recorder = probe, probe.recorder
        self._parameters, self._names = ParameterRegistry(probe), TensorNames()
        self._calls = LoaderCalls(probe, self, self._parameters, self._names)
        self._state = _ThreadState()
        self._has_ledger = includes(probe.level, "ledger")
        self._repacks = RepackedCalls(probe, self)
        self._acts = {
            "weights.created": self._creating,
            "weights.mapped": self._mapping,
            "loader.called": self._calls.entered,
            "weights.processed": self._processing,
            "tensor.converted": self._converting,
            "model.loaded": _explained,
        }

    def enter(self, call: Call) -> None:
        """Open the span of what is about to run."""
        act = self._acts.get(call.tracepoint.shows)
        if act is not None:
            act(call)

    def leave(self, call: Call) -> None:
        """Close the span, or note what a function without one gave."""
        shows = call.tracepoint.shows
        if shows == "loader.called":
            self._calls.left(call, "returned")
        elif shows == "tensor.read":
            self._read(call)
        elif shows == "tensor.converted":
            self._calls.converted(call.get("made") or ())
        elif shows == "tensor.rearranged":
            made = call.get("tensor")
            self._names.note_rearranged(made)
            if self._has_ledger and is_tensor(made) and call.get("order") is not None:
                note_taken(self._parameters.memory, made, call.get("source"), call.get("dim", 0), call.get("order"))
        elif shows == "model.loaded":
            self._recorder.point(_model_loaded(call), call.rank)
            self._calls.finished(_parameters(call.get("model")))
        elif shows == "weights.mapped":
            self._mapped(call)
        elif self in call.kept:
            self._repacks.left(call)
            self._recorder.end(call.kept[self])

    def failed(self, call: Call, error: BaseException) -> None:
        """Close what is open; the error itself is recorded by the probe."""
        del error
        if call.tracepoint.shows == "loader.called":
            self._calls.left(call, "raised")
        elif call.tracepoint.shows == "model.loaded":
            if call.get("model") is not None:  # an engine that refuses an incomplete model
                self._recorder.point(_model_loaded(call), call.rank)
        elif call.tracepoint.shows == "tensor.converted":
            self._calls.converted(())
        elif call.tracepoint.shows == "weights.mapped":
            self._mapped(call)
        elif self in call.kept:
            self._repacks.left(call)
            self._recorder.end(call.kept[self])

    def _read(self, call: Call) -> None:
        tensor = call.get("tensor")
        if tensor is None:
            return  # nothing of it is this rank's
        name = str(call.get("name", ""))
        self._names.note(name, tensor)
        part = part_of(call.get("stored_dtype"), call.get("stored_shape"), call.get("taken"))
        if part is not None:
            self._calls.cut_at_reading(name, cuts_of(part))
        if self._has_ledger and is_tensor(tensor):
            if call.get("is_computed"):
                self._parameters.memory.read(name, tensor, is_exact=False)
            else:
                note_part(self._parameters.memory, name, tensor, part)

    def _converting(self, call: Call) -> None:
        self._calls.converting(call.get("sources") or ())

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
        joined = tuple(str(one) for one in call.get("joined") or ())
        body = WeightsProcessed(module, type_name(call.get("method")), call.where, joined)
        call.kept[self] = self._recorder.begin(body, call.rank)
        if self._has_ledger:
            self._repacks.entered(call, module)

    def _module_of(self, call: Call) -> str:
        return str(call.get("module", "") or self._probe.layers.of(call.get("layer")))

    # --- load_weights

    def _mapping(self, call: Call) -> None:
        self._state.maps += 1
        call.kept["is_counted"] = True
        if self._state.maps > 1:
            return  # a model that hands over to the load_weights of its parts
        self._calls.begin()
        model = call.get("model")
        built_as = self._probe.layers.note_model(model)
        parameters = list(_parameters(model))
        call.kept[self] = self._recorder.begin(WeightsMapped(type_name(model), len(parameters)), call.rank)
        for name, parameter in parameters:
            known = self._parameters.register(name, parameter)
            body = registered(known, parameter, built_as.get(name.rpartition(".")[0], ""))
            self._recorder.point(body, call.rank)

    def _mapped(self, call: Call) -> None:
        if call.kept.pop("is_counted", False):
            self._state.maps -= 1
            if not self._state.maps:
                self._calls.end(_parameters(call.get("model")), call.rank)
        if self in call.kept:
            self._recorder.end(call.kept[self])


def _parameters(model: Any) -> Iterator[tuple[str, Any]]:
    """Parameters, and those buffers that have a loader, by full name; of distributed ones this rank's part."""
    named = getattr(model, "named_parameters", None)
    buffers = getattr(model, "named_buffers", None)
    held = ((name, one) for name, one in (buffers() if buffers else ()) if hasattr(one, "weight_loader"))
    return ((name, local_part(one)) for name, one in chain(named() if named else (), held))


def _model_loaded(call: Call) -> ModelLoaded:
    model, count = call.get("model"), call.get("parameters")
    filled, used = (tuple(str(name) for name in call.get(key) or ()) for key in ("never_filled", "never_used"))
    tied = _tied(model)
    return ModelLoaded(
        parameters=len(list(_parameters(model))) if count is None else int(count),
        never_filled=filled,
        never_used=used,
        has_report="never_filled" in call.tracepoint.arguments,
        initialised=tuple(call.get("initialised") or ()),
        tied=tuple(tied),
        tied_to=tuple(tied.values()),
    )


def _tied(model: Any) -> dict[str, str]:
    """Names of parameters that are another one's tensor, each with the first name of that."""
    named = getattr(model, "named_parameters", None)
    try:
        everything = list(named(remove_duplicate=False)) if named else []
    except TypeError:  # a model with a listing of its own, without doubles
        return {}
    first: dict[int, str] = {}
    return {name: known for name, one in everything if (known := first.setdefault(id(one), name)) != name}


def _explained(call: Call) -> None:
    """Should the model be refused: the first parameter because of which, where the engine says one."""

    def refused() -> dict[str, str]:
        parameter = next((str(name) for name in call.get("refused") or ()), "")
        return {"module": parameter.rpartition(".")[0], "parameter": parameter} if parameter else {}

    call.explain_by(refused)


INSPECTOR = WeightsInspector()
