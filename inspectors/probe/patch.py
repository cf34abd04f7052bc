"""Finds the functions a tracepoint names and puts a forwarding wrapper in their place, wherever they are held."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, GeneratorType, ModuleType
from typing import TYPE_CHECKING, Any

from inspectors.probe.call import Binding, Call, ReturnWatch
from inspectors.probe.tracepoint import Tracepoint

if TYPE_CHECKING:
    from inspectors.probe.agent import Probe

_MARK = "__loadscope__"


class UnresolvedError(Exception):
    """A tracepoint names something that is not there or must not be wrapped; the message says what was found."""


class Site:
    """A tracepoint in an engine: makes wrappers and knows which functions they replaced."""

    def __init__(self, probe: Probe, tracepoint: Tracepoint, engine_name: str, package: str) -> None:
        self.probe, self.tracepoint, self.engine_name, self.package = probe, tracepoint, engine_name, package
        self.module_pattern, _, self.qualname = tracepoint.target.partition(":")
        self.is_for_subclasses = "+." in self.qualname
        self.wrapped, self.is_called = 0, False
        self.is_reported = False
        self.replaced: dict[int, tuple[Any, Any]] = {}

    def covers(self, module_name: str) -> bool:
        """True for the module that `target` names; "package.*" is every module directly in it."""
        if self.module_pattern.endswith(".*"):
            return module_name.rpartition(".")[0] == self.module_pattern[:-2]
        return module_name == self.module_pattern

    def set_in(self, module: ModuleType) -> None:
        """Wrap what `target` names in this module; raises UnresolvedError when it is not there."""
        *owner, name = self.qualname.split(".")
        if not owner:
            self._wrap_function(module, name)
            return
        wanted = ".".join(owner)
        if wanted.startswith("*"):
            for cls in _classes_of(module, wanted[1:].strip("[]")):
                self._wrap_method(cls, name)
        elif wanted.endswith("+"):
            self._wrap_with_subclasses(_class(module, wanted[:-1]), name)
        else:
            cls = _class(module, wanted)
            if name not in vars(cls):
                raise UnresolvedError(f"class {wanted} of {module.__name__} defines no {name}")
            self._wrap_method(cls, name)

    def is_defined_nowhere(self, module: ModuleType) -> bool:
        """True for a method that neither a class nor any of the subclasses made of it has: it has gone, or its name."""
        owner, _, _ = self.qualname.rpartition("+.")
        return self.is_for_subclasses and not self.wrapped and bool(type.__subclasses__(_class(module, owner)))

    def replace_references(self, module: ModuleType) -> None:
        """Put the wrapper where `module` holds the function under any name (`from x import f`)."""
        if self.replaced:
            for name, value in list(vars(module).items()):
                original, wrapper = self.replaced.get(id(value), (None, None))
                if original is value and original is not None:
                    setattr(module, name, wrapper)

    def _wrap_function(self, module: ModuleType, name: str) -> None:
        function = vars(module).get(name)
        if function is None:
            raise UnresolvedError(f"module {module.__name__} has no {name}")
        wrapper = self._wrapper(function)
        if wrapper is None:
            return
        self.replaced[id(function)] = (function, wrapper)
        below = f"{self.package}."
        for holder in list(sys.modules.values()):
            holder_name = getattr(holder, "__name__", "")
            if isinstance(holder, ModuleType) and (holder_name == self.package or holder_name.startswith(below)):
                self.replace_references(holder)
        setattr(module, name, wrapper)

    def _wrap_with_subclasses(self, cls: type, name: str) -> None:
        for found in _with_subclasses(cls):
            self._wrap_method(found, name)
        own = vars(cls).get("__init_subclass__")

        def init_subclass(subclass: type, *args: Any, **kwargs: Any) -> None:
            if own is not None:
                own.__get__(None, subclass)(*args, **kwargs)
            else:
                super(cls, subclass).__init_subclass__(*args, **kwargs)  # type: ignore[arg-type]
            self._wrap_method(subclass, name)

        cls.__init_subclass__ = classmethod(init_subclass)  # type: ignore[assignment]

    def _wrap_method(self, cls: type, name: str) -> None:
        held = vars(cls).get(name)
        if held is None:
            return
        kind = type(held) if isinstance(held, (staticmethod, classmethod)) else None
        wrapper = self._wrapper(held.__func__ if isinstance(held, (staticmethod, classmethod)) else held)
        if wrapper is not None:
            setattr(cls, name, wrapper if kind is None else kind(wrapper))

    def _wrapper(self, function: Any) -> Any:
        """The wrapper of `function`; None when it is already wrapped for this tracepoint."""
        if isinstance(function, BuiltinFunctionType) or not callable(function) or isinstance(function, type):
            raise UnresolvedError(f"{function!r} is not a Python function; it is left alone")
        layer = function
        while isinstance(layer, FunctionType) and vars(layer).get(_MARK, (None,))[0] is layer:
            if vars(layer)[_MARK][1] is self:
                return None
            layer = layer.__wrapped__  # type: ignore[attr-defined]
        self.wrapped += 1
        return traced(self, function, Binding(function, self.tracepoint.arguments))


def replace_in_all(sites: Iterable[Site]) -> None:
    """Put the wrappers of `sites` into every module that holds what they replaced; its own names are looked at once."""
    replaced = {key: pair for site in sites for key, pair in site.replaced.items()}
    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()) if isinstance(module, ModuleType) else ():
            original, wrapper = replaced.get(id(value), (None, None))
            if original is value and original is not None:
                setattr(module, name, wrapper)


def traced(site: Site, function: Callable[..., Any], binding: Binding) -> Callable[..., Any]:
    """A function that calls `function` with the very same arguments and tells the probe before and after."""
    probe, tracepoint, code = site.probe, site.tracepoint, binding.code
    wants_locals, is_for_subclasses = binding.wants_locals, site.is_for_subclasses
    is_iterator = tracepoint.shows == "tensor.read"

    @functools.wraps(function)
    def forward(*args: Any, **kwargs: Any) -> Any:
        site.is_called = True
        call = probe.enter(tracepoint, binding, args, kwargs, is_for_subclasses=is_for_subclasses)
        if call is None:
            return function(*args, **kwargs)
        try:
            result = _watched(call, code, function, args, kwargs) if wants_locals else function(*args, **kwargs)
        except BaseException as error:
            probe.failed(call, error)
            raise
        probe.leave(call, result)
        return result

    @functools.wraps(function)
    def forward_iterator(*args: Any, **kwargs: Any) -> Any:
        site.is_called = True
        call = probe.open(tracepoint, binding, args, kwargs)
        try:
            result = _watched(call, code, function, args, kwargs) if wants_locals else function(*args, **kwargs)
        except BaseException as error:
            probe.failed(call, error)
            raise
        if isinstance(result, GeneratorType):
            return _forward_items(site, binding, result, args, kwargs)
        probe.leave(call, result)  # an engine that reads one tensor a call
        return result

    wrapper = forward_iterator if is_iterator else forward
    vars(wrapper)[_MARK] = (wrapper, site)
    return wrapper


def _watched(
    call: Call, code: CodeType | None, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Call a function and take its locals as it returns."""
    if code is None:
        return function(*args, **kwargs)
    watch = ReturnWatch(code)
    watch.start()
    try:
        return function(*args, **kwargs)
    finally:
        watch.stop()
        call.locals, call.line = watch.locals, watch.line


def _forward_items(
    site: Site, binding: Binding, generator: Generator[Any, None, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Generator[Any, None, Any]:
    """Yield what `generator` yields, one recorded call an item; nothing of an item is kept while the next is made."""
    try:
        while True:
            call = site.probe.open(site.tracepoint, binding, args, kwargs)
            try:
                item = next(generator)
            except StopIteration as stop:
                return stop.value
            except BaseException as error:
                site.probe.failed(call, error)
                raise
            site.probe.leave(call, item)
            call.result = None
            yield item
            del item
    finally:
        generator.close()


def _class(module: ModuleType, dotted: str) -> type:
    found: Any = module
    for name in dotted.split("."):
        found = getattr(found, name, None)
    if not isinstance(found, type):
        raise UnresolvedError(f"module {module.__name__} has no class {dotted}")
    return found


def _classes_of(module: ModuleType, marker: str) -> list[type]:
    """The classes defined in `module`; with a marker only those which define that method themselves."""
    found = [v for v in list(vars(module).values()) if isinstance(v, type) and v.__module__ == module.__name__]
    return [cls for cls in found if not marker or marker in vars(cls)]


def _with_subclasses(cls: type) -> Iterator[type]:
    yield cls
    subclasses: list[type] = type.__subclasses__(cls)
    for subclass in subclasses:
        yield from _with_subclasses(subclass)
