"""One loader call from entry to return: its facts, its span, and the watch over the operations inside it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from inspectors.probe.callplaces import CallPlace
from inspectors.probe.dispatch import LoaderOperations, is_torch_here
from inspectors.probe.events import Body, LoaderCalled, ParameterRegistered, ShardSplit
from inspectors.probe.fingerprints import Trust
from inspectors.probe.gate import AtHand
from inspectors.probe.loaders import KnownParameter, ParameterRegistry, describe_loader
from inspectors.probe.loadwatch import Ledger
from inspectors.probe.splitwatch import SplitWatch
from inspectors.probe.stages import includes
from inspectors.probe.tensors import (
    dtype_name,
    is_tensor,
    plain_tensors,
    shape_of,
    size_bytes,
    type_name,
)
from inspectors.probe.threads import Around, Followed
from inspectors.probe.views import identity_of

if TYPE_CHECKING:
    from inspectors.probe.agent import Probe
    from inspectors.probe.call import Call
    from inspectors.probe.inspector import Inspector
    from inspectors.probe.names import TensorNames, Yielded
    from inspectors.probe.recorder import Recorder
    from inspectors.probe.splits import Cut


class ActiveCall:
    """A loader call between its entry and its return."""

    __slots__ = ("body", "parameter", "place", "rank", "recorder", "seq", "storage", "tensor", "watch")

    def __init__(self, recorder: Recorder, body: LoaderCalled, rank: int, parameter: Any, tensor: Any) -> None:
        self.recorder, self.body, self.rank = recorder, body, rank
        self.parameter, self.tensor = parameter, tensor
        self.storage = identity_of(parameter)
        self.watch: SplitWatch | None = None
        self.place: CallPlace
        self.seq = recorder.begin(body, rank)

    def at_hand(self) -> AtHand:
        """What a person can look at while the call is held."""
        return AtHand(self.body.checkpoint_name, self.tensor, self.body.parameter, self.parameter)

    def facts(self) -> dict[str, str]:
        """What `stage.failed` says of the call."""
        parameter = self.body.parameter
        module = parameter.rpartition(".")[0]
        return {"module": module, "parameter": parameter, "checkpoint_name": self.body.checkpoint_name}

    def on_cut(self, cut: Cut, name: str = "") -> None:
        """The loader cut the checkpoint tensor, or that one of several."""
        whose = (self.body.parameter, name or self.body.checkpoint_name)
        split = ShardSplit(*whose, cut.dim, cut.start, cut.length, cut.size, cut.operation)
        self.recorder.point(split, self.rank)

    def on_write(self, written: Body) -> None:
        """The loader wrote into a parameter."""
        self.recorder.point(written, self.rank)


class _ThreadState(threading.local):
    def __init__(self) -> None:
        self.calls: list[ActiveCall] = []
        self.operations: LoaderOperations | None = None
        self.sources = ""


class LoaderCalls:
    """The loader calls of every thread, on behalf of the inspector that is disabled when something here faults."""

    def __init__(self, probe: Probe, inspector: Inspector, parameters: ParameterRegistry, names: TensorNames) -> None:
        self._probe, self._recorder, self._inspector = probe, probe.recorder, inspector
        self._parameters, self._names = parameters, names
        self._state = _ThreadState()
        self._has_ledger = includes(probe.level, "ledger")
        self._concerns = Ledger.concerns if self._has_ledger else SplitWatch.concerns
        self._trust, self._followed = Trust(), Followed(self._around)
        self._cut: dict[str, list[Cut]] = {}

    def begin(self) -> None:
        """A model's `load_weights` begins: what its loaders hand to other threads is followed there."""
        self._parameters.memory.clear()
        if self._has_ledger:
            self._followed.begin()

    def finished(self, parameters: Iterable[tuple[str, Any]]) -> None:
        """A model is ready: where its elements came from has been told."""
        self._parameters.memory.forget({identity_of(parameter) for _, parameter in parameters})

    def end(self, parameters: Iterable[tuple[str, Any]], rank: int) -> None:
        """See `begin`; parameters that were given other memory outside of their loaders' calls are told now."""
        if not self._has_ledger:
            return
        self._followed.end()
        memory = self._parameters.memory
        for name, parameter in parameters:
            storage = identity_of(parameter)
            if storage and all(held.name != name for held in memory.parameters.get(storage, ())):
                self._parameters.note_memory(name, parameter)
                watch = Ledger(None, None, lambda _: None, lambda body: self._tell(body, rank), memory)
                watch.rebound(name, parameter)

    def _tell(self, body: Body, rank: int) -> None:
        self._recorder.point(body, rank)

    def converting(self, sources: Iterable[str]) -> None:
        """In this thread tensors are made of these checkpoint tensors, and its calls are about them, until the end."""
        self._state.sources = ", ".join(sources)

    def converted(self, made: Iterable[Any]) -> None:
        """See `converting`; what came of it is known by the names of all of them."""
        for tensor in made:
            self._names.note_made(self._state.sources, tensor)
        self._state.sources = ""

    def entered(self, call: Call) -> None:
        """A loader is about to run; one that ends in another one for the same parameter is the same call."""
        get = call.get
        parameter, tensor, state = get("parameter"), get("tensor"), self._state
        if state.calls and any(one.parameter is parameter for one in state.calls):
            same = state.calls[-1]
            call.explain_by(lambda: {**same.facts(), "is_nested": "yes"})
            return
        noted = self._names.of(tensor)
        body = self._body(call, parameter, tensor, noted)
        active = ActiveCall(self._recorder, body, call.rank, parameter, tensor)
        state.calls.append(active)
        if self._cut:
            self._tell_cuts(active)
        call.kept[self] = active
        call.explain_by(active.facts)
        active.place = self._probe.gate.call_begins(body, call.rank, active.at_hand)
        if is_tensor(tensor) and is_torch_here():
            active.watch = self._watch(tensor, noted, active)
            self._operations().enter()

    def cut_at_reading(self, name: str, cuts: list[Cut]) -> None:
        """An engine took these parts of a tensor as it read it; the first call about it tells them."""
        if cuts:
            self._cut[name] = cuts

    def _tell_cuts(self, active: ActiveCall) -> None:
        for name in active.body.checkpoint_name.split(", "):
            for cut in self._cut.pop(name, ()):
                active.on_cut(cut, name)

    def _operations(self) -> LoaderOperations:
        state = self._state
        if state.operations is None:
            state.operations = LoaderOperations(self._concerns, self._saw, self._raised)
        return state.operations

    def left(self, call: Call, outcome: str) -> None:
        """The loader returned or raised."""
        active: ActiveCall | None = call.kept.get(self)
        if active is None:
            return
        state = self._state
        if active.watch is not None and state.operations is not None:
            state.operations.leave()
        state.calls.remove(active)
        filled = call.get("filled")
        if is_tensor(filled):
            active.parameter = filled  # a loader that puts another tensor in the parameter's place
        self._follow_memory(active)
        if active.watch is not None:
            active.watch.ended()
        body = active.body.but(outcome=outcome)
        gate = self._probe.gate
        if outcome == "returned":
            gate.about_to_return(active.seq, body, active.place)
        gate.call_is_over(active.place)
        self._recorder.end(active.seq, body)

    def _body(self, call: Call, parameter: Any, tensor: Any, noted: Yielded | None) -> LoaderCalled:
        known = self._parameters.known(parameter) or _stranger(parameter, call.get("parameter_name"))
        shard_id, expert_id = call.get("shard_id"), call.get("expert_id")
        facts = {
            "checkpoint_name": self._state.sources or (noted.name if noted is not None else ""),
            "tensor_dtype": dtype_name(tensor),
            "tensor_shape": shape_of(tensor),
            "tensor_bytes": size_bytes(tensor),
            "shard_id": "" if shard_id is None else repr(shard_id),
            "expert_id": int(expert_id) if isinstance(expert_id, int) else -1,
        }
        if not known.loader or call.tracepoint.target != ":":
            facts["loader"], facts["where"] = describe_loader(call.binding.function)
        return known.called.but(**facts)

    def _watch(self, tensor: Any, noted: Yielded | None, active: ActiveCall) -> SplitWatch:
        if not self._has_ledger:
            return SplitWatch(tensor, active.on_cut)
        look_again = lambda: self._follow_memory(active)  # noqa: E731 - the last of four callbacks
        memory, body = self._parameters.memory, active.body
        ledger = Ledger(tensor, noted, active.on_cut, active.on_write, memory, look_again, active.parameter)
        ledger.guard(self._trust, body.loader, body.parameter)
        return ledger

    def _around(self) -> Around | None:
        """How this thread's loader call is taken along into another thread; None outside of any."""
        active = self._state.calls[-1] if self._state.calls else None
        if self._probe.is_ours or active is None or not isinstance(active.watch, Ledger):
            return None
        active.watch.is_handed_on = True
        return functools.partial(self._taken_along, active)

    def _taken_along(self, active: ActiveCall, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            state, operations = self._state, self._operations()
            state.calls.append(active)
            self._recorder.adopt(active.seq)
            operations.enter()
            try:
                return function(*args, **kwargs)
            finally:
                operations.leave()
                self._recorder.abandon(active.seq)
                state.calls.remove(active)

        return run

    def _saw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """One operation ran inside a loader call; guarded by hand, since this runs for every one of them."""
        probe = self._probe
        if probe.is_ours:
            return
        plain = plain_tensors()
        if plain is not None:
            plain.__enter__()
        try:
            *outer, active = self._state.calls
            if active.watch is not None:
                active.watch.saw(func, args, kwargs, out)
            for one in outer:  # a call inside another one: what it writes is its own, what it cuts is cut for both
                if one.watch is not None:
                    one.watch.saw_inside(func, args, kwargs, out)
        except Exception as error:
            probe.fault(self._inspector, error)
        finally:
            if plain is not None:
                plain.__exit__(None, None, None)

    def _raised(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """An operation raised inside a loader call, perhaps half-way."""
        active = self._state.calls[-1]
        if active.watch is not None:
            with self._probe.guarded(self._inspector):
                active.watch.raised(func, args, kwargs)

    def _follow_memory(self, active: ActiveCall) -> None:
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
            dtype = dtype_name(active.parameter)
            active.body = replace(active.body, parameter_shape=shape, parameter_dtype=dtype)
            if known is not None:
                self._recorder.point(registered(known, active.parameter), active.rank)


def registered(known: KnownParameter, parameter: Any, built_as: str = "") -> ParameterRegistered:
    """The event that says what a parameter is."""
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


def _stranger(parameter: Any, name: Any) -> KnownParameter:
    """A parameter that was not there when load_weights began, by the name that its loader's call has or its own."""
    name = str(name or getattr(parameter, "full_name", "") or getattr(parameter, "name", "") or "")
    return KnownParameter(name, type_name(parameter), dtype_name(parameter), shape_of(parameter), "", "")
