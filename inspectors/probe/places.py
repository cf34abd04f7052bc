"""Elements that an operator names by index or mask, as few strided views as they make."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from inspectors.probe.moves import MAX_BOXES, Sizes
from inspectors.probe.views import View

MAX_INDICES = 1 << 16


class UnreadableError(Exception):
    """What an operator did is not told by its arguments, or not by few enough of them."""


class TooManyPlacesError(UnreadableError):
    """The places are known, but not as a few views; `offsets` are their first bytes, `length` the bytes at each."""

    def __init__(self, offsets: Sequence[int], length: int) -> None:
        super().__init__()
        self.offsets, self.length = offsets, length


class Places(NamedTuple):
    """Byte offsets in a storage, in the order in which the operator goes over them.

    At each lies a block: `before` and `after` are the view's dimensions, as (sizes, strides), around the indexed ones.
    """

    offsets: list[int]
    before: tuple[Sizes, Sizes]
    after: tuple[Sizes, Sizes]
    index_sizes: Sizes
    item: int

    def block_bytes(self) -> int:
        """Bytes at each offset, where they lie one after the other; 0 where they do not."""
        length = self.item
        for size, stride in zip(reversed(self.after[0]), reversed(self.after[1]), strict=True):
            if size > 1 and stride != length:
                return 0
            length *= size
        return length if not self.before[0] else 0

    @property
    def sizes(self) -> Sizes:
        """The sizes of what was indexed."""
        return (*self.before[0], *self.index_sizes, *self.after[0])

    def counted(self, other: View) -> list[int]:
        """Where a view with these sizes holds them: its byte offsets along the indexed dimensions."""
        first, n = len(self.before[0]), len(self.index_sizes)
        if len(other.sizes) != first + n + len(self.after[0]):
            raise UnreadableError
        strides = other.strides[first : first + n]
        return [
            other.offset + sum(i * stride for i, stride in zip(index, strides, strict=True))
            for index in itertools.product(*(range(size) for size in self.index_sizes))
        ]

    def views(self, base: View) -> Iterator[View]:
        """The places as views."""
        for start, step, _, _, count in _progressions(self.offsets, [0] * len(self.offsets), self):
            yield self._view(base, start, step, count)

    def _view(self, base: View, start: int, step: int, count: int) -> View:
        sizes = (*self.before[0], count, *self.after[0])
        return base._replace(offset=start, sizes=sizes, strides=(*self.before[1], step, *self.after[1]))


def paired(base: View, places: Places, other: View, counted: list[int]) -> Iterator[tuple[View, View]]:
    """The places in `base`, and the same elements as `other` holds them at its offsets `counted`, view by view."""
    first, n = len(places.before[0]), len(places.index_sizes)
    is_blockless = not places.before[0] and not places.after[0]
    before, after = (other.strides[:first], other.strides[first + n :]) if not is_blockless else ((), ())
    for start, step, own_start, own_step, count in _progressions(places.offsets, counted, places):
        sizes = (*places.before[0], count, *places.after[0])
        mine = base._replace(offset=start, sizes=sizes, strides=(*places.before[1], step, *places.after[1]))
        yield mine, other._replace(offset=own_start, sizes=sizes, strides=(*before, own_step, *after))


def _progressions(one: list[int], two: list[int], places: Places) -> list[tuple[int, int, int, int, int]]:
    """Runs in which both offsets grow evenly: (start, step, start, step, count)."""
    found: list[tuple[int, int, int, int, int]] = []
    place = 0
    while place < len(one):
        if len(found) >= MAX_BOXES:
            length = places.block_bytes()
            raise TooManyPlacesError(one, length) if length else UnreadableError
        stop = place + 1
        if stop < len(one):
            step, own_step = one[stop] - one[place], two[stop] - two[place]
            while stop < len(one) and (one[stop] - one[stop - 1], two[stop] - two[stop - 1]) == (step, own_step):
                stop += 1
            found.append((one[place], step, two[place], own_step, stop - place))
        else:
            found.append((one[place], 0, two[place], 0, 1))
        place = stop
    return found


def indexed(view: View, indices: Sequence[Any]) -> Places:
    """Where a view is indexed by tensors, of which neighbours may be given; None keeps a dimension whole."""
    given = [d for d, index in enumerate(indices) if index is not None]
    if not given or given != list(range(given[0], given[-1] + 1)):
        raise UnreadableError
    first = given[0]
    if len(given) == 1 and str(indices[first].dtype) in {"torch.bool", "torch.uint8"}:
        return _of_mask(view, first, indices[first])
    sizes = tuple(indices[first].shape)
    if any(tuple(indices[d].shape) != sizes for d in given):
        raise UnreadableError
    lists = [_numbers(indices[d]) for d in given]
    return _of_lists(view, first, lists, sizes)


def masked(view: View, mask: Any) -> Places:
    """Where a mask of the view's own shape is true."""
    if tuple(mask.shape) != view.sizes:
        raise UnreadableError
    return _of_mask(view, 0, mask)


def _of_mask(view: View, first: int, mask: Any) -> Places:
    if mask.device.type != "cpu" or mask.numel() > MAX_INDICES:
        raise UnreadableError
    found = mask.nonzero()
    lists = [found[:, d].tolist() for d in range(mask.dim())]
    return _of_lists(view, first, lists, (len(found),))


def _of_lists(view: View, first: int, lists: list[list[int]], index_sizes: Sizes) -> Places:
    last = first + len(lists)
    sizes, strides = view.sizes[first:last], view.strides[first:last]
    offsets = [
        view.offset + sum((i % size) * stride for i, size, stride in zip(index, sizes, strides, strict=True))
        for index in zip(*lists, strict=True)
    ]
    before, after = (view.sizes[:first], view.strides[:first]), (view.sizes[last:], view.strides[last:])
    return Places(offsets, before, after, index_sizes, view.item)


def scattered(view: View, dim: int, index: Any, other: View | None) -> tuple[Places, list[int]]:
    """The elements of `view` that `scatter_` writes or `gather` reads along `dim`, and where `other` holds them."""
    numbers, sizes = _numbers(index), tuple(index.shape)
    offsets, own = [], []
    for number, at in zip(numbers, itertools.product(*(range(n) for n in sizes)), strict=True):
        place = (*at[:dim], number, *at[dim + 1 :])
        offsets.append(view.offset + sum(i * stride for i, stride in zip(place, view.strides, strict=True)))
        if other is not None:
            own.append(other.offset + sum(i * stride for i, stride in zip(at, other.strides, strict=True)))
    return Places(offsets, ((), ()), ((), ()), (len(offsets),), view.item), own


def _numbers(index: Any) -> list[int]:
    if index.device.type != "cpu" or index.numel() > MAX_INDICES:
        raise UnreadableError
    numbers: list[int] = index.reshape(-1).tolist()
    return numbers
