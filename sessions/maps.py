"""Exact maps from a box of a parameter into a checkpoint tensor: element to element, and ranges back to boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul

import numpy as np

from sessions.coverage import Box, Numbers, elements
from sessions.ledger import Write

MOST_RUNS = 4_000_000
_NO_MAP = ("computed by", "made before", "unknown", "constant")

Dimension = tuple[int, int, int]
"""Number, length and stride of one dimension."""


@dataclass(frozen=True)
class AffineMap:
    """Element `start + i` of a parameter holds the element number `offset + sum(i * strides)` of a tensor."""

    start: tuple[int, ...]
    length: tuple[int, ...]
    offset: int
    strides: tuple[int, ...]

    def holds(self, index: Sequence[int]) -> bool:
        """True when the element of the parameter lies in the box."""
        return is_inside(index, self.start, self.length)

    def source(self, index: Sequence[int]) -> int:
        """The row-major number in the tensor of the parameter's element `index`, which must lie in the box."""
        return self.offset + sum((i - a) * s for i, a, s in zip(index, self.start, self.strides, strict=True))

    def boxes_from(self, begin: int, end: int) -> list[Box]:
        """The boxes of the parameter that hold the elements begin..end-1 of the tensor, disjoint, in order."""
        if not elements(self.length):
            return []
        order = sorted(range(len(self.length)), key=lambda d: -self.strides[d])
        moving = [(d, self.length[d], self.strides[d]) for d in order if self.strides[d] and self.length[d] > 1]
        found = _inside(moving, begin - self.offset, end - self.offset)
        return sorted(self._box(dict(ranges)) for ranges in found)

    def _box(self, ranges: dict[int, tuple[int, int]]) -> Box:
        cut = [ranges.get(d, (0, n)) for d, n in enumerate(self.length)]
        start = tuple(a + lo for a, (lo, _) in zip(self.start, cut, strict=True))
        return start, tuple(hi - lo for lo, hi in cut)

    def runs(self) -> Numbers | None:
        """Begin and end, [runs, 2], of the stretches of the tensor that are taken; None when there are too many."""
        width, starts = 1, np.array([self.offset], dtype=np.int64)
        moving = sorted((s, n) for s, n in zip(self.strides, self.length, strict=True) if s and n > 1)
        if not elements(self.length):
            return np.empty((0, 2), dtype=np.int64)
        for stride, n in moving:
            if stride == width and len(starts) == 1:
                width *= n
                continue
            if len(starts) * n > MOST_RUNS:
                return None
            starts = (starts[:, None] + np.arange(n, dtype=np.int64)[None, :] * stride).reshape(-1)
        return np.stack([starts, starts + width], axis=1)


def is_inside(index: Sequence[int], start: Sequence[int], length: Sequence[int]) -> bool:
    """True when an element lies in a box."""
    return all(a <= i < a + n for i, a, n in zip(index, start, length, strict=True))


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides in elements of a contiguous tensor: (12, 4, 1) for [2, 3, 4]."""
    return tuple(accumulate(reversed(shape[1:]), mul, initial=1))[::-1] if shape else ()


def unravelled(number: int, shape: Sequence[int]) -> tuple[int, ...]:
    """The index of a row-major element number."""
    return tuple(number // stride % size for stride, size in zip(row_major(shape), shape, strict=True))


def boxes_of_range(begin: int, end: int, shape: Sequence[int]) -> list[Box]:
    """The elements begin..end-1 in memory order as boxes of `shape`; a scalar counts as shape (1,)."""
    shape = tuple(shape) or (1,)
    whole = AffineMap((0,) * len(shape), shape, 0, row_major(shape))
    return whole.boxes_from(begin, end)


def _inside(dims: list[Dimension], begin: int, end: int) -> Iterator[list[tuple[int, tuple[int, int]]]]:
    """Ranges of the dimensions, the widest stride first, whose sums of i * stride lie in begin..end-1."""
    reach = sum((n - 1) * stride for _, n, stride in dims)
    if begin > reach or end <= 0:
        return
    if begin <= 0 and reach < end:
        yield []
        return
    (dim, n, stride), *rest = dims
    inner = reach - (n - 1) * stride
    first, last = max(0, -(-(begin - inner) // stride)), min(n, -(-end // stride))
    whole, part = max(first, -(-begin // stride)), min(last, (end - 1 - inner) // stride + 1)
    if whole >= part:
        whole = part = last
    for i in (*range(first, whole), *range(part, last)):
        for found in _inside(rest, begin - i * stride, end - i * stride):
            yield [(dim, (i, i + 1)), *found]
    if whole < part:
        yield [(dim, (whole, part))]


def map_of(write: Write, shape: Sequence[int]) -> AffineMap | None:
    """The exact map of a write into its checkpoint tensor of `shape`: as recorded, else from its boxes.

    None where values were computed, where the place is no box, and where the boxes allow several maps.
    """
    if len(write.start) != len(write.length) or (not write.start and write.elements > 1):
        return None
    if write.source_offset >= 0:
        is_whole = len(write.source_strides) == len(write.start)
        return AffineMap(write.start, write.length, write.source_offset, write.source_strides) if is_whole else None
    if len(write.source_start) != len(shape) or any(word in write.source for word in _NO_MAP):
        return None
    strides = _derived(write, row_major(shape))
    if strides is None:
        return None
    offset = sum(at * stride for at, stride in zip(write.source_start, row_major(shape), strict=True))
    return AffineMap(write.start, write.length, offset, strides)


def _derived(write: Write, steps: Sequence[int]) -> tuple[int, ...] | None:
    target = [(d, n) for d, n in enumerate(write.length) if n > 1]
    source = [(d, n) for d, n in enumerate(write.source_length) if n > 1]
    out = [0] * len(write.length)
    if "transposed" in write.source:
        if len(target) != 2 or [n for _, n in target] != [n for _, n in reversed(source)]:
            return None
        source.reverse()
    if "broadcast" in write.source and len(source) < len(target):
        placed = _placed([n for _, n in target], [n for _, n in source])
        if placed is None:
            return None
        target = [target[place] for place in placed]
    if [n for _, n in target] != [n for _, n in source]:
        return None
    for (into, _), (taken, _) in zip(target, source, strict=True):
        out[into] = steps[taken]
    return tuple(out)


def _placed(target: Sequence[int], source: Sequence[int]) -> list[int] | None:
    """Which dimensions of `target` a smaller source fills: the last ones as torch broadcasts, else the only choice."""
    if list(target[len(target) - len(source) :]) == list(source):
        return list(range(len(target) - len(source), len(target)))
    if len(source) == 1 and list(target).count(source[0]) == 1:
        return [list(target).index(source[0])]
    return None
