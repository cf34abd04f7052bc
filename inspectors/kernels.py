"""Kernels: every operator, Triton launch and quantized layer of a forward pass, in one order."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from inspectors.probe import devicetime
from inspectors.probe.agent import Probe
from inspectors.probe.call import Call
from inspectors.probe.dispatch import WatchedOperations, is_torch_here, schema_name
from inspectors.probe.events import ForwardRan, KernelLaunched
from inspectors.probe.launches import Tensors, asked, compiled, grid_of
from inspectors.probe.stages import includes
from inspectors.probe.tensors import is_tensor, shape_of, type_name
from inspectors.probe.tracepoint import Tracepoint

TIMED_PASSES = 2
"""Forward passes of each model and phase whose launches are timed on the device, from level `values` on."""

_TIMED_LEVEL = "values"
_MAX_OPTION_CHARACTERS = 400
_LAUNCH = {"kernel": "self", "grid": "grid", "is_warmup": "warmup"}


_UNTIMED: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()


@dataclass
class _Pass:
    """A forward pass: its event, the mode that sees its operators, the profile that times them and what it times."""

    seq: int
    mode: WatchedOperations | None = None
    profile: devicetime.DeviceProfile | None = None
    keys: int = 0
    launches: dict[int, tuple[int, KernelLaunched]] = field(default_factory=dict)

    def timed(self) -> tuple[int, contextlib.AbstractContextManager[Any]]:
        """A key for the next launch and the block it shall run in; 0 where launches are not timed on the device."""
        if self.profile is None:
            return 0, _UNTIMED
        self.keys += 1
        return self.keys, self.profile.launch(self.keys)

    def launched(self, key: int, seq: int, body: KernelLaunched) -> None:
        """A launch that was timed as `key` is event `seq`."""
        if key:
            self.launches[key] = seq, body


@dataclass
class _Triton:
    """A Triton launch between its entry and its return."""

    seq: int
    body: KernelLaunched
    key: int
    block: contextlib.AbstractContextManager[Any]


class _ThreadState(threading.local):
    """The forward pass this thread is in: its call, the modules it is inside of, the names of its model's modules."""

    def __init__(self) -> None:
        self.forward: Call | None = None
        self.current: _Pass | None = None
        self.modules: list[str] = []
        self.names: dict[int, str] = {}


class KernelsInspector:
    """Watches operators while a model's forward runs, and Triton launches wherever they happen."""

    stages = frozenset({"forward.run", "kernel.launch"})
    level = "calls"
    tracepoints: Sequence[Tracepoint] = (
        Tracepoint("kernel.launch", "kernel.launched", "triton.runtime.jit:JITFunction.run", _LAUNCH),
        Tracepoint("kernel.launch", "kernel.launched", "triton.runtime.interpreter:InterpretedFunction.run", _LAUNCH),
    )

    def start(self, probe: Probe) -> None:
        """Forget everything of an earlier probe."""
        self._probe, self._recorder = probe, probe.recorder
        self._state = _ThreadState()
        self._named: weakref.WeakKeyDictionary[Any, dict[int, str]] = weakref.WeakKeyDictionary()
        self._hooks: list[Any] = []
        self._running, self._lock = 0, threading.Lock()
        self._passes: weakref.WeakKeyDictionary[Any, dict[tuple[str, int], int]] = weakref.WeakKeyDictionary()

    def enter(self, call: Call) -> None:
        """Begin to watch; a forward inside another one belongs to it."""
        if call.tracepoint.shows == "kernel.launched":
            call.facts["module"] = self._module()
            if not call.get("is_warmup"):
                self._launching(call)
        elif self._state.forward is None:
            self._begin(call)

    def leave(self, call: Call) -> None:
        """Stop watching."""
        if call.tracepoint.shows == "kernel.launched":
            if self in call.kept:
                self._launched(call)
        elif self._state.forward is call:
            self._end(call)

    def failed(self, call: Call, error: BaseException) -> None:
        """Stop watching; the error itself is recorded by the probe."""
        del error
        self.leave(call)

    # --- one forward pass

    def _begin(self, call: Call) -> None:
        model = call.get("model")
        tokens = _tokens(call.get("input_ids"))
        state = self._state
        phase = _phase(tokens, call.get("positions"))
        profile, device_times = self._profile(model, phase, call.rank)
        body = ForwardRan(type_name(model), phase, tokens, device_times)
        state.forward, state.modules, state.names = call, [], self._names_of(model)
        state.current = current = _Pass(self._recorder.begin(body, call.rank), profile=profile)
        if is_torch_here():
            self._hook_modules()
            current.mode = WatchedOperations(self._run)
            current.mode.enter()

    def _end(self, call: Call) -> None:
        del call
        current, self._state.forward, self._state.current = self._state.current, None, None
        if current is None:
            return
        if current.mode is not None:
            current.mode.leave()
            self._unhook_modules()
        self._recorder.end(current.seq)
        if current.profile is not None:
            for key, device_ns in current.profile.finish().items():
                if key in current.launches:
                    seq, body = current.launches[key]
                    self._recorder.amend(seq, replace(body, device_ns=device_ns))

    def _give_up_profile(self) -> None:
        """An inspector that faulted is told of no end: the profiler must not go on until the host wants it."""
        current = self._state.current
        if current is not None and current.profile is not None and not self._probe.has(self):
            profile, current.profile = current.profile, None
            with self._probe.guarded(None):
                profile.finish()

    def _profile(self, model: Any, phase: str, rank: int) -> tuple[devicetime.DeviceProfile | None, str]:
        """A profile of this pass and how its launches are timed; None and why not, "" where nobody asked."""
        activity = devicetime.device_activity() if includes(self._probe.level, _TIMED_LEVEL) else None
        if activity is None:
            return None, ""
        passes = self._passes.setdefault(model, {})
        passes[phase, rank] = passes.get((phase, rank), 0) + 1
        if passes[phase, rank] > TIMED_PASSES:
            return None, f"only the first {TIMED_PASSES} passes are timed"
        reason = devicetime.why_not()
        host = sys.modules["torch"].profiler.ProfilerActivity.CPU
        profile = None if reason else devicetime.DeviceProfile.begun((host, activity))
        return profile, "profiler" if profile is not None else reason or "another thread is being profiled"

    # --- one operator

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator; an operator of a library gets an open span, since launches may lie inside it."""
        if self._probe.is_ours or not self._probe.has(self) or not hasattr(func, "_schema"):
            self._give_up_profile()
            return func(*args, **kwargs)
        call, current, opened = self._state.forward, self._state.current, 0
        rank = call.rank if call is not None else -1
        is_aten = func.namespace in {"aten", "prim", "prims"}
        if not is_aten:
            with self._probe.guarded(self):
                opened = self._recorder.begin(self._operator(func, args, kwargs, "custom"), rank)
        key, block = current.timed() if current is not None else (0, _UNTIMED)
        start_ns = time.monotonic_ns()
        try:
            with block:
                out = func(*args, **kwargs)
        except BaseException:
            dur_ns = time.monotonic_ns() - start_ns
            with self._probe.guarded(self):
                if opened:
                    self._recorder.end(opened)
                elif is_aten:
                    self._recorder.measured(self._operator(func, args, kwargs, "aten"), rank, start_ns, dur_ns)
            raise
        dur_ns = time.monotonic_ns() - start_ns
        with self._probe.guarded(self):
            body = self._operator(func, args, kwargs, "aten" if is_aten else "custom", out)
            if opened:
                self._recorder.end(opened, body)
            seq = opened or (self._recorder.measured(body, rank, start_ns, dur_ns) if is_aten else 0)
            if current is not None:
                current.launched(key, seq, body)
        return out

    def _operator(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], launcher: str, out: Any = None
    ) -> KernelLaunched:
        overload, given = getattr(func, "_overloadname", "default"), Tensors.of((*args, *kwargs.values()))
        return KernelLaunched(
            name=schema_name(func),
            launcher=launcher,
            module=self._module(),
            shapes=given.shapes,
            outputs=Tensors.of((out,)).shapes,
            options="" if overload == "default" else f"overload {overload}",
            strides=given.strides,
            alignments=given.alignments if launcher == "custom" else (),
        )

    # --- Triton, and methods

    def _launching(self, call: Call) -> None:
        body, current = self._launch(call), self._state.current
        seq = self._recorder.begin(body, call.rank)
        key, block = current.timed() if current is not None and body.launcher == "triton" else (0, _UNTIMED)
        call.kept[self] = _Triton(seq, body, key, block)
        block.__enter__()

    def _launched(self, call: Call) -> None:
        launch: _Triton = call.kept.pop(self)
        launch.block.__exit__(None, None, None)
        told = compiled(call.result)
        body = replace(launch.body, **told) if told else launch.body
        self._recorder.end(launch.seq, body if told else None)
        if self._state.current is not None:
            self._state.current.launched(launch.key, launch.seq, body)

    def _launch(self, call: Call) -> KernelLaunched:
        if "method" in call.tracepoint.arguments:
            return self._application(call, call.get("method"), call.get("layer"))
        kernel = call.get("kernel")
        names = list(getattr(kernel, "arg_names", ()))
        given = dict(zip(names, call.args[1:], strict=False))
        given.update({name: value for name, value in call.kwargs.items() if name in names})
        options = {n: v for n, v in call.kwargs.items() if n not in names and n not in {"grid", "warmup"}}
        constants = {name: value for name, value in given.items() if not is_tensor(value)}
        function, tensors = getattr(kernel, "fn", kernel), Tensors.of(given.values())
        told = " ".join(f"{n}={_short(v)}" for n, v in (*options.items(), *constants.items()))
        return KernelLaunched(
            name=str(getattr(function, "__name__", "") or getattr(kernel, "__name__", type_name(kernel))),
            launcher="triton",
            module=self._module(),
            shapes=tensors.shapes,
            grid=grid_of(call.get("grid"), given),
            options=told[:_MAX_OPTION_CHARACTERS],
            strides=tensors.strides,
            alignments=tensors.alignments,
            **asked(options),
        )

    def _application(self, call: Call, method: Any, layer: Any) -> KernelLaunched:
        """A quantization method's `apply`: what an engine launches for a layer begins here."""
        given = [value for value in (*call.args, *call.kwargs.values()) if value is not method and value is not layer]
        tensors = Tensors.of(given)
        return KernelLaunched(
            name=f"{type_name(method)}.apply",
            launcher="method",
            module=self._probe.layers.of(layer) or self._module(),
            shapes=tensors.shapes,
            strides=tensors.strides,
            alignments=tensors.alignments,
        )

    # --- module names

    def _module(self) -> str:
        return self._state.modules[-1] if self._state.modules else ""

    def _names_of(self, model: Any) -> dict[int, str]:
        try:
            known = self._named.get(model)
            if known is None:
                named: Any = getattr(model, "named_modules", tuple)()
                known = self._named[model] = {id(module): name for name, module in named}
        except TypeError:  # a model of a toy engine that cannot be held weakly
            known = {}
        return known

    def _hook_modules(self) -> None:
        with self._lock:
            self._running += 1
            if self._running == 1:
                modules = sys.modules["torch.nn.modules.module"]
                self._hooks = [
                    modules.register_module_forward_pre_hook(self._enters_module),
                    modules.register_module_forward_hook(self._leaves_module, always_call=True),
                ]

    def _unhook_modules(self) -> None:
        with self._lock:
            self._running -= 1
            if not self._running:
                for hook in self._hooks:
                    hook.remove()
                self._hooks = []

    def _enters_module(self, module: Any, _args: Any) -> None:
        state = self._state
        if state.forward is not None:
            state.modules.append(state.names.get(id(module), ""))

    def _leaves_module(self, _module: Any, _args: Any, _output: Any) -> None:
        if self._state.modules:
            self._state.modules.pop()


def _tokens(input_ids: Any) -> int:
    return math.prod(shape_of(input_ids)) if hasattr(input_ids, "shape") else 0


def _phase(tokens: int, positions: Any) -> str:
    """A pass over one token is a decode step unless it stands at position 0; a device tensor is not read."""
    if tokens != 1:
        return "prefill"
    if is_tensor(positions) and positions.device.type == "cpu" and positions.numel():
        return "decode" if int(positions.reshape(-1)[0]) else "prefill"
    return "decode"


def _short(value: Any) -> str:
    return getattr(value, "__name__", None) or str(value)


INSPECTOR = KernelsInspector()
