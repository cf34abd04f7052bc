"""Which operations cut a tensor: slices, selects and splits as (dim, start, length, size)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from inspectors.probe.dispatch import schema_name
from inspectors.probe.tensors import shape_of


@dataclass(frozen=True)
class Cut:
    """`length` of `size` elements along `dim`, from `start` on."""

    dim: int
    start: int
    length: int
    size: int
    operation: str


def cuts(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Iterator[Cut]:
    """The cuts that one operation made; nothing for an operation that cuts nothing or gives the whole back."""
    read = _READERS.get(schema_name(func))
    if read is not None:
        yield from (cut for cut in read(func, args, kwargs, out) if cut.length != cut.size)


def is_cut(func: Any) -> bool:
    """Whether the operator is one that `cuts` reads."""
    return schema_name(func) in _READERS


_places: dict[Any, dict[str, int]] = {}


def _argument(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str, default: Any) -> Any:
    places = _places.get(func)
    if places is None:
        schema = func._schema  # noqa: SLF001 - the public way to a schema
        places = _places[func] = {argument.name: place for place, argument in enumerate(schema.arguments)}
    place = places.get(name, len(args))
    value = args[place] if place < len(args) else kwargs.get(name)
    return default if value is None else value


def _slice(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Iterator[Cut]:
    shape = shape_of(args[0])
    dim = _argument(func, args, kwargs, "dim", 0) % len(shape)
    start, step = _argument(func, args, kwargs, "start", 0), _argument(func, args, kwargs, "step", 1)
    start = min(max(start + shape[dim] if start < 0 else start, 0), shape[dim])
    yield Cut(dim, start, shape_of(out)[dim], shape[dim], "slice" if step == 1 else f"slice step {step}")


def _select(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Iterator[Cut]:
    del out
    shape = shape_of(args[0])
    dim = _argument(func, args, kwargs, "dim", 0) % len(shape)
    yield Cut(dim, _argument(func, args, kwargs, "index", 0) % shape[dim], 1, shape[dim], "select")


def _split(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Iterator[Cut]:
    shape, start = shape_of(args[0]), 0
    dim = _argument(func, args, kwargs, "dim", 0) % len(shape)
    for piece in out:
        length = shape_of(piece)[dim] if len(shape_of(piece)) == len(shape) else 1
        yield Cut(dim, start, length, shape[dim], "split" if schema_name(func) != "aten::unbind" else "unbind")
        start += length


_READERS: dict[str, Callable[[Any, tuple[Any, ...], dict[str, Any], Any], Iterator[Cut]]] = {
    "aten::slice": _slice,
    "aten::select": _select,
    "aten::split": _split,
    "aten::split_with_sizes": _split,
    "aten::unbind": _split,
}
