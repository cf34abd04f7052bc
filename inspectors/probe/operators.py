"""What torch's operators move: every one that only copies, as elementwise copies between strided views."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from inspectors.probe.lineage import CONSTANT
from inspectors.probe.places import Places, UnreadableError, indexed, masked, paired, scattered
from inspectors.probe.tensors import is_tensor
from inspectors.probe.views import View, expanded, view_of

Args = tuple[Any, ...]


class Step(NamedTuple):
    """`target` took the elements of `source`, of the same sizes, or was filled with what `note` says.

    `places` are the bytes, as (first, count) pairs, where they are too many for views of their own.
    """

    target: View
    source: View | None
    note: str = ""
    places: tuple[tuple[int, int], ...] = ()


Reader = Callable[[View, Args, dict[str, Any]], Iterator[Step]]


def argument(args: Args, kwargs: dict[str, Any], place: int, name: str, default: Any = None) -> Any:
    """An operator's argument by place or name."""
    value = args[place] if place < len(args) else kwargs.get(name)
    return default if value is None else value


def narrowed(view: View, dim: int, start: int, length: int) -> View:
    """`length` elements along `dim` from `start` on."""
    sizes = (*view.sizes[:dim], length, *view.sizes[dim + 1 :])
    return view._replace(offset=view.offset + start * view.strides[dim], sizes=sizes)


def _copy(target: View, args: Args, kwargs: dict[str, Any]) -> Iterator[Step]:
    source = view_of(argument(args, kwargs, 1, "src"))
    if source is None:
        raise UnreadableError
    yield Step(target, expanded(source, target.sizes))


def _cloned(out: View, args: Args, kwargs: dict[str, Any]) -> Iterator[Step]:
    del kwargs
    source = view_of(args[0])
    if source is None:
        raise UnreadableError
    yield Step(out, expanded(source, out.sizes))


def _filled(target: View, args: Args, kwargs: dict[str, Any]) -> Iterator[Step]:
    value = argument(args, kwargs, 1, "value")
    source = view_of(value) if is_tensor(value) else None
    if source is not None:
        yield Step(target, expanded(source, target.sizes))
    else:
        yield Step(target, None, CONSTANT)


def _constant(out: View, args: Args, kwargs: dict[str, Any]) -> Iterator[Step]:
    del args, kwargs
    yield Step(out, None, CONSTANT)


def _nothing(out: View, args: Args, kwargs: dict[str, Any]) -> Iterator[Step]:
    del out, args, kwargs
    yield from ()


def _cat(out: View, args: Args, kwargs: dict[str, Any]) -> Iterator[Step]:
    dim, at = int(argument(args, kwargs, 1, "dim", 0)) % max(1, len(out.sizes)), 0
    for part in _views(args[0] if args else kwargs["tensors"]):
        if len(part.sizes) == len(out.sizes):  # torch lets empty one-dimensional tensors join any others
            yield Step(narrowed(out, dim, at, part.sizes[dim]), part)
            at += part.sizes[dim]


def _stack(out: View, args: Args, kwargs: dict[str, Any]) -> Iterator[Step]:
    dim = int(argument(args, kwargs, 1, "dim", 0)) % max(1, len(out.sizes))
    for at, part in enumerate(_views(args[0] if args else kwargs["tensors"])):
        sizes, strides = (*part.sizes[:dim], 1, *part.sizes[dim:]), (*part.strides[:dim], 0, *part.strides[dim:])
        yield Step(narrowed(out, dim, at, 1), part._replace(sizes=sizes, strides=strides))


def _views(tensors: Sequence[Any]) -> Iterator[View]:
    for tensor in tensors:
        view = view_of(tensor)
        if view is not None:
            yield view
        elif tensor.numel():
            raise UnreadableError


def _repeated(out: View, args: Args, kwargs: dict[str, Any]) -> Iterator[Step]:
    """Each dimension of the result is (times, size) of the source's."""
    source, times = view_of(args[0]), argument(args, kwargs, 1, "repeats")
    if source is None:
        raise UnreadableError
    missing = len(times) - len(source.sizes)
    sizes, to, at = [], [], []
    have = ((1,) * missing + source.sizes, (0,) * missing + source.strides)
    for count, size, stride, out_stride in zip(times, *have, out.strides, strict=True):
        sizes += [int(count), size]
        to += [out_stride * size, out_stride]
        at += [0, stride]
    yield Step(
        out._replace(sizes=tuple(sizes), strides=tuple(to)), source._replace(sizes=tuple(sizes), strides=tuple(at))
    )


def _flipped(out: View, args: Args, kwargs: dict[str, Any]) -> Iterator[Step]:
    source = view_of(args[0])
    if source is None:
        raise UnreadableError
    offset, strides = source.offset, list(source.strides)
    for dim in {int(d) % len(source.sizes) for d in argument(args, kwargs, 1, "dims", ())}:
        offset += (source.sizes[dim] - 1) * strides[dim]
        strides[dim] = -strides[dim]
    yield Step(out, source._replace(offset=offset, strides=tuple(strides)))


def _rolled(out: View, args: Args, kwargs: dict[str, Any]) -> Iterator[Step]:
    source = view_of(args[0])
    shifts, dims = argument(args, kwargs, 1, "shifts"), argument(args, kwargs, 2, "dims", ())
    if source is None or len(shifts) != 1 or len(dims) != 1:
        raise UnreadableError
    dim = int(dims[0]) % len(out.sizes)
    size = out.sizes[dim]
    shift = int(shifts[0]) % size
    if shift:
        yield Step(narrowed(out, dim, 0, shift), narrowed(source, dim, size - shift, shift))
    yield Step(narrowed(out, dim, shift, size - shift), narrowed(source, dim, 0, size - shift))


def _padded(out: View, args: Args, kwargs: dict[str, Any]) -> Iterator[Step]:
    source, pad = view_of(args[0]), argument(args, kwargs, 1, "pad")
    if source is None or min(pad) < 0:
        raise UnreadableError
    yield Step(out, None, CONSTANT)
    for k in range(len(pad) // 2):
        dim = len(out.sizes) - 1 - k
        out = narrowed(out, dim, int(pad[2 * k]), source.sizes[dim])
    yield Step(out, source)


def _taken(out: View, args: Args, kwargs: dict[str, Any]) -> Iterator[Step]:
    """`index_select` and indexing with tensors: rows of the source, one after the other."""
    source = view_of(args[0])
    if source is None:
        raise UnreadableError
    if len(args) > 1 and isinstance(args[1], (list, tuple)):
        places = indexed(source, args[1])
    else:
        dim = int(argument(args, kwargs, 1, "dim", 0)) % max(1, len(source.sizes))
        places = indexed(source, [None] * dim + [argument(args, kwargs, 2, "index")])
    counted = places.counted(out)
    yield from (Step(to, at) for at, to in paired(source, places, out, counted))


def _index_copied(target: View, args: Args, kwargs: dict[str, Any]) -> Iterator[Step]:
    dim = int(argument(args, kwargs, 1, "dim")) % max(1, len(target.sizes))
    places = indexed(target, [None] * dim + [argument(args, kwargs, 2, "index")])
    value = argument(args, kwargs, 3, "source", argument(args, kwargs, 3, "value"))
    yield from _put(target, places, value)


def _index_put(target: View, args: Args, kwargs: dict[str, Any]) -> Iterator[Step]:
    if argument(args, kwargs, 3, "accumulate", default=False):
        raise UnreadableError
    yield from _put(target, indexed(target, argument(args, kwargs, 1, "indices")), argument(args, kwargs, 2, "values"))


def _masked_filled(target: View, args: Args, kwargs: dict[str, Any]) -> Iterator[Step]:
    yield from _put(target, masked(target, argument(args, kwargs, 1, "mask")), argument(args, kwargs, 2, "value"))


def _masked_scattered(target: View, args: Args, kwargs: dict[str, Any]) -> Iterator[Step]:
    source, places = view_of(argument(args, kwargs, 2, "source")), masked(target, argument(args, kwargs, 1, "mask"))
    if source is None or not source.is_row_major:
        raise UnreadableError
    flat = source._replace(sizes=(len(places.offsets),), strides=(source.item,))
    yield from (Step(to, at) for to, at in paired(target, places, flat, places.counted(flat)))


def _put(target: View, places: Places, value: Any) -> Iterator[Step]:
    """What is at `places` becomes `value`, a number or a tensor."""
    source = view_of(value) if is_tensor(value) else None
    if is_tensor(value) and source is None:
        raise UnreadableError
    if len(set(places.offsets)) != len(places.offsets):
        raise UnreadableError  # which of several stays is not told
    if source is None:
        yield from (Step(to, None, CONSTANT) for to in places.views(target))
        return
    source = expanded(source, places.sizes)
    yield from (Step(to, at) for to, at in paired(target, places, source, places.counted(source)))


def _scattered(target: View, args: Args, kwargs: dict[str, Any]) -> Iterator[Step]:
    dim = int(argument(args, kwargs, 1, "dim")) % max(1, len(target.sizes))
    value = argument(args, kwargs, 3, "src", argument(args, kwargs, 3, "value"))
    index, source = argument(args, kwargs, 2, "index"), view_of(value) if is_tensor(value) else None
    places, own = scattered(target, dim, index, source)
    if len(set(places.offsets)) != len(places.offsets) or (is_tensor(value) and source is None):
        raise UnreadableError
    if source is None:
        yield from (Step(to, None, CONSTANT) for to in places.views(target))
    else:
        yield from (Step(to, at) for to, at in paired(target, places, source, own))


def _gathered(out: View, args: Args, kwargs: dict[str, Any]) -> Iterator[Step]:
    source = view_of(args[0])
    if source is None:
        raise UnreadableError
    dim = int(argument(args, kwargs, 1, "dim")) % max(1, len(source.sizes))
    places, own = scattered(source, dim, argument(args, kwargs, 2, "index"), out)
    yield from (Step(to, at) for at, to in paired(source, places, out, own))


def _of_names(reader: Reader, *names: str) -> dict[str, Reader]:
    return {f"aten::{name}": reader for name in names}


MAKERS: dict[str, Reader] = {
    **_of_names(_cloned, "clone", "_to_copy", "contiguous", "lift_fresh_copy", "alias_copy", "_pin_memory",
                "detach_copy", "expand_copy"),
    **_of_names(_nothing, "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "empty_permuted"),
    **_of_names(_constant, "zeros", "ones", "full", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones",
                "new_full", "scalar_tensor", "arange", "eye", "linspace"),
    **_of_names(_cat, "cat"), **_of_names(_stack, "stack"), **_of_names(_repeated, "repeat"),
    **_of_names(_flipped, "flip"), **_of_names(_rolled, "roll"), **_of_names(_padded, "constant_pad_nd"),
    **_of_names(_taken, "index_select", "index"), **_of_names(_gathered, "gather"),
}  # fmt: skip
"""Operators whose result holds nothing but what they were given, or constants. The first argument is the source."""

WRITERS: dict[str, Reader] = {
    **_of_names(_copy, "copy_"), **_of_names(_filled, "fill_"), **_of_names(_constant, "zero_"),
    **_of_names(_index_copied, "index_copy_", "index_fill_"), **_of_names(_index_put, "index_put_", "_index_put_impl_"),
    **_of_names(_masked_filled, "masked_fill_"), **_of_names(_masked_scattered, "masked_scatter_"),
    **_of_names(_scattered, "scatter_"),
}  # fmt: skip
"""Operators that write nothing else into their first argument."""

METADATA = frozenset({"aten::set_", "aten::resize_", "aten::resize_as_", "aten::detach_", "aten::requires_grad_",
                      "aten::squeeze_", "aten::unsqueeze_", "aten::t_", "aten::transpose_", "aten::as_strided_",
                      "aten::swapaxes_", "aten::swapdims_"})  # fmt: skip
"""Operators that change which memory a tensor shows, not what is in it."""
