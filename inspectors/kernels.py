"""Kernels: every operator, Triton launch and quantized layer of a forward pass, with module, shapes and duration."""

from __future__ import annotations

import math
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

from inspectors.probe.agent import Probe
from inspectors.probe.call import Call
from inspectors.probe.dispatch import WatchedOperations, is_torch_here, schema_name
from inspectors.probe.events import ForwardRan, KernelLaunched
from inspectors.probe.tensors import brief, is_tensor, shape_of, type_name
from inspectors.probe.tracepoint import Tracepoint

_MAX_OPTION_CHARACTERS = 400
_LAUNCH = {"kernel": "self", "grid": "grid", "is_warmup": "warmup"}


class _ThreadState(threading.local):
    """The forward pass this thread is in: its call, the modules it is inside of, the names of its model's modules."""

    def __init__(self) -> None:
        self.forward: Call | None = None
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

    def enter(self, call: Call) -> None:
        """Begin to watch; a forward inside another one belongs to it."""
        if call.tracepoint.shows == "kernel.launched":
            call.facts["module"] = self._module()
            if not call.get("is_warmup"):
                call.kept[self] = self._recorder.begin(self._launch(call), call.rank)
        elif self._state.forward is None:
            self._begin(call)

    def leave(self, call: Call) -> None:
        """Stop watching."""
        if call.tracepoint.shows == "kernel.launched":
            if self in call.kept:
                self._recorder.end(call.kept[self])
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
        body = ForwardRan(type_name(model), _phase(tokens, call.get("positions")), tokens)
        state = self._state
        state.forward, state.modules, state.names = call, [], self._names_of(model)
        seq = self._recorder.begin(body, call.rank)
        mode = None
        if is_torch_here():
            self._hook_modules()
            mode = WatchedOperations(self._run)
            mode.enter()
        call.kept[self] = (seq, mode)

    def _end(self, call: Call) -> None:
        seq, mode = call.kept[self]
        if mode is not None:
            mode.leave()
            self._unhook_modules()
        self._state.forward = None
        self._recorder.end(seq)

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator; an operator of a library gets an open span, since launches may lie inside it."""
        if self._probe.is_ours or not self._probe.has(self) or not hasattr(func, "_schema"):
            return func(*args, **kwargs)
        call, opened = self._state.forward, 0
        rank = call.rank if call is not None else -1
        is_aten = func.namespace in {"aten", "prim", "prims"}
        if not is_aten:
            with self._probe.guarded(self):
                opened = self._recorder.begin(self._operator(func, args, kwargs, "custom"), rank)
        start_ns = time.monotonic_ns()
        try:
            out = func(*args, **kwargs)
        except BaseException:
            if opened:
                self._recorder.end(opened)
            raise
        dur_ns = time.monotonic_ns() - start_ns
        with self._probe.guarded(self):
            body = self._operator(func, args, kwargs, "aten" if is_aten else "custom", out)
            if opened:
                self._recorder.end(opened, body)
            elif is_aten:
                self._recorder.measured(body, rank, start_ns, dur_ns)
        return out

    def _operator(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], launcher: str, out: Any = None
    ) -> KernelLaunched:
        overload = getattr(func, "_overloadname", "default")
        return KernelLaunched(
            name=schema_name(func),
            launcher=launcher,
            module=self._module(),
            shapes=_tensors((*args, *kwargs.values())),
            outputs=_tensors((out,)),
            options="" if overload == "default" else f"overload {overload}",
        )

    # --- Triton

    def _launch(self, call: Call) -> KernelLaunched:
        if "method" in call.tracepoint.arguments:
            return self._application(call, call.get("method"), call.get("layer"))
        kernel = call.get("kernel")
        names = list(getattr(kernel, "arg_names", ()))
        given = dict(zip(names, call.args[1:], strict=False))
        given.update({name: value for name, value in call.kwargs.items() if name in names})
        options = {n: v for n, v in call.kwargs.items() if n not in names and n not in {"grid", "warmup"}}
        constants = {name: value for name, value in given.items() if not is_tensor(value)}
        function = getattr(kernel, "fn", kernel)
        return KernelLaunched(
            name=str(getattr(function, "__name__", "") or getattr(kernel, "__name__", type_name(kernel))),
            launcher="triton",
            module=self._module(),
            shapes=_tensors(given.values()),
            grid=_grid(call.get("grid"), given),
            options=" ".join(f"{n}={_short(v)}" for n, v in (*options.items(), *constants.items()))[
                :_MAX_OPTION_CHARACTERS
            ],
        )

    def _application(self, call: Call, method: Any, layer: Any) -> KernelLaunched:
        """A quantization method's `apply`: what an engine launches for a layer begins here."""
        given = [value for value in (*call.args, *call.kwargs.values()) if value is not method and value is not layer]
        name = f"{type_name(method)}.apply"
        module = self._probe.layers.of(layer) or self._module()
        return KernelLaunched(name=name, launcher="method", module=module, shapes=_tensors(given))

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


def _tensors(values: Any) -> tuple[str, ...]:
    """`bfloat16[4,256]` of every tensor, lists flattened one level."""
    found: list[str] = []
    for value in values:
        if is_tensor(value):
            found.append(brief(value))
        elif isinstance(value, (list, tuple)):
            found.extend(brief(one) for one in value if is_tensor(one))
    return tuple(found)


def _grid(grid: Any, given: dict[str, Any]) -> tuple[int, ...]:
    grid = grid(given) if callable(grid) else grid
    return tuple(int(n) for n in grid) if isinstance(grid, (tuple, list)) else (int(grid),)


def _short(value: Any) -> str:
    return getattr(value, "__name__", None) or str(value)


INSPECTOR = KernelsInspector()
