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

Getter = Callable[["Call"], Any]
_MISSING: Any = object()
_NO_LOCALS: Mapping[str, Any] = {}
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
        self._arguments = arguments
        self._getters: dict[str, Getter] = {}
        told = [
            place
            for source in arguments.values()
            for place in (source.places if isinstance(source, Computed) else (source,))
        ]
        self.wants_locals = any(_parse(place)[0] == _LOCAL for place in told) and self.code is not None

    def _read_code(self, code: CodeType, function: Any) -> None:
        positional = code.co_varnames[: code.co_argcount]
        self._places = {name: place for place, name in enumerate(positional)}
        defaults = getattr(function, "__defaults__", None) or ()
        self._defaults = dict(zip(positional[len(positional) - len(defaults) :], defaults, strict=True))
        self._defaults.update(getattr(function, "__kwdefaults__", None) or {})

    def value(self, call: Call, name: str) -> Any:
        """The value under an inspector's name, `_MISSING` when this call has none."""
        getter = self._getters.get(name)
        if getter is None:
            getter = self._getters[name] = self._getter(name)
        return getter(call)

    def _getter(self, name: str) -> Getter:
        """How the value under a name is read from a call; worked out once, since it is read at every call."""
        source = self._arguments.get(name, name)
        if isinstance(source, str):
            return self._reader(*_parse(source) if name in self._arguments else (_PARAMETER, name, ()))
        function, readers = source.function, tuple(self._reader(*_parse(place)) for place in source.places)

        def computed(call: Call) -> Any:
            found = (read(call) for read in readers)
            return function(*(None if one is _MISSING else one for one in found))

        return computed

    def _reader(self, kind: str, key: str, attributes: tuple[str, ...]) -> Getter:
        read = self._parameter(key)
        if kind == _RESULT:
            read = _result
        elif kind == _LOCAL:
            read = lambda call: call.locals.get(key, _MISSING)  # noqa: E731 - one of three ways to begin
        for attribute in attributes:
            read = _following(read, attribute)
        return read

    def _parameter(self, key: str) -> Getter:
        place, default = self._places.get(key, 1 << 30), self._defaults.get(key, _MISSING)

        def read(call: Call) -> Any:
            args = call.args
            return args[place] if place < len(args) else call.kwargs.get(key, default)

        return read


class Call:
    """One call. `facts` holds names for `stage.failed` and `kept` what an inspector keeps from enter to leave."""

    __slots__ = (
        "_explain", "_facts", "_kept", "args", "binding", "depth", "dur_ns", "is_entered", "kwargs", "line", "locals",
        "probe", "rank", "result", "start_ns", "tracepoint",
    )  # fmt: skip

    def __init__(
        self, probe: Probe, tracepoint: Tracepoint, binding: Binding, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self.probe, self.tracepoint, self.binding = probe, tracepoint, binding
        self.args, self.kwargs = args, kwargs
        self.result: Any = None
        self._facts: dict[str, str] | None = None
        self._kept: dict[object, Any] | None = None
        self._explain: Callable[[], dict[str, str]] | None = None
        self.locals: Mapping[str, Any] = _NO_LOCALS
        self.line = self.start_ns = self.dur_ns = self.depth = 0
        self.rank, self.is_entered = NO_RANK, False

    @property
    def facts(self) -> dict[str, str]:
        """Names for `stage.failed`; what `explain_by` was given is asked now."""
        if self._facts is None:
            self._facts = {}
        if self._explain is not None:
            explain, self._explain = self._explain, None
            self._facts.update(explain())
        return self._facts

    def explain_by(self, explain: Callable[[], dict[str, str]]) -> None:
        """Take facts from a function, which is called only if somebody asks: most calls do not fail."""
        self._explain = explain

    @property
    def kept(self) -> dict[object, Any]:
        """What inspectors keep for themselves while the call runs."""
        if self._kept is None:
            self._kept = {}
        return self._kept

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


def _result(call: Call) -> Any:
    return call.result


def _following(read: Getter, attribute: str) -> Getter:
    """What `read` gives, and then its attribute, or its item for a number."""
    if not attribute.isdigit():
        return lambda call: getattr(read(call), attribute, _MISSING)
    place = int(attribute)

    def item(call: Call) -> Any:
        value = read(call)
        return value[place] if isinstance(value, (tuple, list)) and len(value) > place else _MISSING

    return item
