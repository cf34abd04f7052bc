"""Stands in for the weight loaders that parameters carry, so that every call of one is seen whoever makes it."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from inspectors.probe.call import Binding, Call, Getter, code_of, location
from inspectors.probe.events import LoaderCalled
from inspectors.probe.lineage import Memory
from inspectors.probe.patch import Site, traced
from inspectors.probe.tensors import dtype_name, is_tensor, shape_of
from inspectors.probe.tracepoint import Tracepoint
from inspectors.probe.views import identity_of

if TYPE_CHECKING:
    from inspectors.probe.agent import Probe

_SHARD_IDS = ("loaded_shard_id", "shard_id")
_NO_DEFAULT: Any = object()


class LoaderProxy:
    """A parameter's `weight_loader` with a watcher around it; to everybody else it is the loader itself."""

    def __init__(self, original: Callable[..., Any], forward: Callable[..., Any]) -> None:
        self.__dict__["_original"], self.__dict__["_forward"] = original, forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the loader, watched."""
        return self._forward(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_original"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["_original"], name, value)

    @property
    def __class__(self) -> type:
        return type(self.__dict__["_original"])

    @__class__.setter
    def __class__(self, value: type) -> None:
        raise TypeError("a loader's class is not assignable")

    def __eq__(self, other: object) -> bool:
        return bool(self.__dict__["_original"] == original_of(other))

    def __hash__(self) -> int:
        return hash(self.__dict__["_original"])

    def __repr__(self) -> str:
        return repr(self.__dict__["_original"])

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.__dict__["_original"], memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__dict__["_original"].__reduce_ex__(protocol)


def original_of(loader: Any) -> Any:
    """The engine's own loader behind a proxy, or `loader` itself."""
    return loader.__dict__["_original"] if type(loader) is LoaderProxy else loader


class LoaderBinding(Binding):
    """Finds parameter, tensor, shard id and expert id in a loader call however the engine passes them."""

    def __init__(self, loader: Any) -> None:
        super().__init__(loader, {})
        names = tuple(self._places)
        if getattr(loader, "__self__", None) is not None and self.code is not None:
            names = names[1:]  # a bound method is called without its self
        self._places = {name: place for place, name in enumerate(names)}
        self._names = (*names, "param", "loaded_weight")[:2] if len(names) < 2 else names[:2]

    def _getter(self, name: str) -> Getter:
        """See `Binding.value`; the names are parameter, tensor, shard_id and expert_id."""
        if name in {"parameter", "tensor"}:
            place, wanted = int(name == "tensor"), self._names[name == "tensor"]
            return lambda call: (
                call.args[place] if place < len(call.args) else call.kwargs.get(wanted, _first(call, name))
            )
        if name != "shard_id":
            return super()._getter(name)
        named = next((key for key in _SHARD_IDS if key in self._places), "")
        read = self._parameter(named) if named else _shard_by_place

        def shard_id(call: Call) -> Any:
            if not named:
                for key in _SHARD_IDS:
                    if key in call.kwargs:
                        return call.kwargs[key]
            return read(call)

        return shard_id


def _first(call: Call, name: str) -> Any:
    key = {"parameter": "param", "tensor": "loaded_weight"}[name]
    return call.kwargs.get(key, next((v for v in call.kwargs.values() if is_tensor(v)), None))


def _shard_by_place(call: Call) -> Any:
    """A closure `(param, weight, *args)`: the third positional value, if the caller gave one."""
    return call.args[2] if len(call.args) > 2 else None


@dataclass(frozen=True)
class KnownParameter:
    """What is told of a parameter with every loader call; taken once, when the model is registered."""

    name: str
    parameter_class: str
    dtype: str
    shape: tuple[int, ...]
    loader: str
    where: str

    @cached_property
    def called(self) -> LoaderCalled:
        """What every call of this parameter's loader has in common."""
        return LoaderCalled(
            parameter=self.name,
            parameter_class=self.parameter_class,
            parameter_dtype=self.dtype,
            parameter_shape=self.shape,
            loader=self.loader,
            where=self.where,
        )


class _Registered(NamedTuple):
    """How a parameter is told from another object at its address: by its memory, or by the proxy that it carries.

    A tensor not by a weak reference (`own`): torch refuses to swap tensors that have one.
    """

    own: weakref.ref[Any] | None
    memory: int
    proxy: weakref.ref[LoaderProxy] | None
    known: KnownParameter


class ParameterRegistry:
    """The parameters of the models that are being loaded, by identity and by memory."""

    def __init__(self, probe: Probe) -> None:
        self._site = Site(probe, Tracepoint("weight.load", "loader.called", ":"), "", "")
        self._known: dict[int, _Registered] = {}
        self.memory = Memory()

    def register(self, name: str, parameter: Any) -> KnownParameter:
        """Note the parameter and put a proxy before its loader, if it has one of its own."""
        loader = getattr(parameter, "weight_loader", None)
        known = KnownParameter(
            name, type(parameter).__name__, dtype_name(parameter), shape_of(parameter), *describe_loader(loader)
        )
        proxy = loader if type(loader) is LoaderProxy else None
        if loader is not None and proxy is None and callable(loader):
            proxy = LoaderProxy(loader, traced(self._site, loader, LoaderBinding(loader)))
            _replace_loader(parameter, proxy)
        own = None if is_tensor(parameter) else weakref.ref(parameter)
        carried = weakref.ref(proxy) if proxy is not None else None  # a loader holds its layer, a layer the model
        self._known[id(parameter)] = _Registered(own, identity_of(parameter), carried, known)
        self.note_memory(name, parameter)
        return known

    def reshaped(self, parameter: Any) -> KnownParameter | None:
        """Take the shape of a registered parameter again, which a loader has given it."""
        known = self.known(parameter)
        if known is None:
            return None
        known = replace(known, dtype=dtype_name(parameter), shape=shape_of(parameter))
        self._known[id(parameter)] = self._known[id(parameter)]._replace(known=known)
        return known

    def note_memory(self, name: str, parameter: Any) -> None:
        """Remember where the parameter's elements lie."""
        if is_tensor(parameter):
            self.memory.place(id(parameter), name, parameter)
            registered = self._known.get(id(parameter))
            if registered is not None and registered.known.name == name:
                self._known[id(parameter)] = registered._replace(memory=identity_of(parameter))

    def known(self, parameter: Any) -> KnownParameter | None:
        """What was registered for this very object."""
        registered = self._known.get(id(parameter))
        if registered is None:
            return None
        if registered.own is not None:
            return registered.known if registered.own() is parameter else None
        held = getattr(parameter, "__dict__", {})
        proxy = held.get("weight_loader", held.get("_weight_loader"))
        is_carried = proxy is not None and registered.proxy is not None and proxy is registered.proxy()
        is_same = is_carried or identity_of(parameter) == registered.memory != 0
        return registered.known if is_same else None


def describe_loader(loader: Any) -> tuple[str, str]:
    """`package.module.Class.weight_loader` and `file:line`; the innermost function for a decorated or partial one."""
    if loader is None:
        return "", ""
    loader = original_of(loader)
    while isinstance(loader, partial):
        loader = loader.func
    function = getattr(loader, "__func__", loader)
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__qualname__)}"
    return name, location(code_of(function))


def _replace_loader(parameter: Any, proxy: LoaderProxy) -> None:
    descriptor = getattr(type(parameter), "weight_loader", _NO_DEFAULT)
    if isinstance(descriptor, property) and descriptor.fset is None:
        parameter._weight_loader = proxy  # noqa: SLF001 - the field's name behind its read-only property
    else:
        parameter.weight_loader = proxy
