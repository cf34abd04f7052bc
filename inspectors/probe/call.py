"""One call at a tracepoint: its arguments under the inspectors' names, its locals at return, its result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from inspectors.probe.events import NO_RANK
from inspectors.probe.tracepoint import Computed, Tracepoint

if TYPE_CHECKING:
    from inspectors.probe.agent import Probe

_MISSING: Any = object()
_RESULT, _LOCAL, _PARAMETER = "result", "local", "parameter"


class Binding:
    """Where an engine function's values are found, by the inspectors' names; made once per wrapped function."""

    def __init__(self, function: Callable[..., Any], arguments: Mapping[str, str | Computed]) -> None:
        while hasattr(function, "__wrapped__"):
            function = function.__wrapped__  # decorated, by the engine or by us: the names are those of the innermost
        self.function, self.code = function, code_of(function)
        self._places: dict[str, int] = {}
        self._defaults: dict[str, Any] = {}
        if self.code is not None:
            self._read_code(self.code, function)
        self._sources = {name: _parse(source) for name, source in arguments.items() if isinstance(source, str)}
        self._computed = {
            name: (source.function, tuple(_parse(place) for place in source.places))
            for name, source in arguments.items()
            if isinstance(source, Computed)
        }
        read = [*self._sources.values(), *(place for _, places in self._computed.values() for place in places)]
        self.wants_locals = any(kind == _LOCAL for kind, _, _ in read) and self.code is not None

    def _read_code(self, code: CodeType, function: Any) -> None:
        positional = code.co_varnames[: code.co_argcount]
        self._places = {name: place for place, name in enumerate(positional)}
        defaults = getattr(function, "__defaults__", None) or ()
        self._defaults = dict(zip(positional[len(positional) - len(defaults) :], defaults, strict=True))
        self._defaults.update(getattr(function, "__kwdefaults__", None) or {})

    def value(self, call: Call, name: str) -> Any:
        """The value under an inspector's name, `_MISSING` when this call has none."""
        if name in self._computed:
            function, places = self._computed[name]
            found = (self._read(call, place) for place in places)
            return function(*(None if one is _MISSING else one for one in found))
        return self._read(call, self._sources.get(name) or (_PARAMETER, name, ()))

    def _read(self, call: Call, place: tuple[str, str, tuple[str, ...]]) -> Any:
        kind, key, attributes = place
        if kind == _RESULT:
            value = call.result
        elif kind == _LOCAL:
            value = call.locals.get(key, _MISSING)
        else:
            value = self._parameter(call, key)
        for attribute in attributes:
            value = _follow(value, attribute)
        return value

    def _parameter(self, call: Call, key: str) -> Any:
        if key in call.kwargs:
            return call.kwargs[key]
        place = self._places.get(key, -1)
        if 0 <= place < len(call.args):
            return call.args[place]
        return self._defaults.get(key, _MISSING)


class Call:
    """One call. `facts` holds names for `stage.failed` and `kept` what an inspector keeps from enter to leave."""

    __slots__ = (
        "args", "binding", "depth", "dur_ns", "facts", "is_entered", "kept", "kwargs", "line", "locals", "probe",
        "rank", "result", "start_ns", "tracepoint",
    )  # fmt: skip

    def __init__(
        self, probe: Probe, tracepoint: Tracepoint, binding: Binding, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self.probe, self.tracepoint, self.binding = probe, tracepoint, binding
        self.args, self.kwargs = args, kwargs
        self.result: Any = None
        self.locals: Mapping[str, Any] = {}
        self.line = self.start_ns = self.dur_ns = self.depth = 0
        self.rank, self.is_entered = NO_RANK, False
        self.facts: dict[str, str] = {}
        self.kept: dict[object, Any] = {}

    def get(self, name: str, default: Any = None) -> Any:
        """The value under an inspector's name, or `default` when the engine gave none."""
        value = self.binding.value(self, name)
        return default if value is _MISSING else value

    @property
    def where(self) -> str:
        """`file:line` of the engine's function; the line that returned where locals were watched."""
        return location(self.binding.code, self.line)


class ReturnWatch:
    """Takes a function's locals as it returns, by a profile function set for this call alone.

    A profiler that the host has set from Python keeps getting every event; under one set from C nothing is taken.
    """

    __slots__ = ("_before", "_code", "line", "locals")

    def __init__(self, code: CodeType) -> None:
        self._code = code
        self._before: Any = None
        self.locals: Mapping[str, Any] = {}
        self.line = 0

    def start(self) -> None:
        """Watch this thread from here on."""
        self._before = sys.getprofile()
        if self._before is None or callable(self._before):
            sys.setprofile(self._see)

    def stop(self) -> None:
        """Give the host its own profiler back."""
        if self._before is None or callable(self._before):
            sys.setprofile(self._before)

    def _see(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "return" and frame.f_code is self._code:
            self.locals, self.line = dict(frame.f_locals), frame.f_lineno
        if self._before is not None:
            self._before(frame, event, arg)


def code_of(function: Any) -> CodeType | None:
    """The code object of a Python function, method or wrapped callable; None for anything else."""
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    return code if isinstance(code, CodeType) else None


def location(code: CodeType | None, line: int = 0) -> str:
    """`file:line`, from the code's first line when no other is given; "" without code."""
    return f"{code.co_filename}:{line or code.co_firstlineno}" if code is not None else ""


def _parse(source: str) -> tuple[str, str, tuple[str, ...]]:
    head, *attributes = source.split(".")
    if head == _RESULT:
        return _RESULT, "", tuple(attributes)
    if head.startswith("local:"):
        return _LOCAL, head.removeprefix("local:"), tuple(attributes)
    return _PARAMETER, head, tuple(attributes)


def _follow(value: Any, attribute: str) -> Any:
    if value is _MISSING:
        return value
    if attribute.isdigit():
        return value[int(attribute)] if isinstance(value, (tuple, list)) and len(value) > int(attribute) else _MISSING
    return getattr(value, attribute, _MISSING)
