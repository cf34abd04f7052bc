"""Exact coverage of an n-dimensional parameter by boxes: counts by coordinate compression, and the coverage line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import mul

import numpy as np
import numpy.typing as npt

MAX_GRID_CELLS = 32_000_000

Box = tuple[tuple[int, ...], tuple[int, ...]]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Grid:
    """How often each element was written: `times` over the cells between the `edges` of every dimension."""

    shape: tuple[int, ...]
    edges: tuple[Numbers, ...]
    times: npt.NDArray[np.int32]

    def count(self, mask: npt.NDArray[np.bool_]) -> int:
        """The number of elements in the cells of `mask` (a mask over `times`)."""
        total: npt.NDArray[np.int64] = mask.astype(np.int64)
        for edges in reversed(self.edges):
            total = total @ np.diff(edges)
        return int(total)

    @property
    def never(self) -> int:
        """Elements no box holds."""
        return self.count(self.times == 0)

    @property
    def twice(self) -> int:
        """Elements that two or more boxes hold."""
        return self.count(self.times >= 2)

    def boxes(self, mask: npt.NDArray[np.bool_]) -> list[Box]:
        """The cells of `mask` as boxes (start, length) of elements, disjoint, in order; alike neighbours are joined."""
        out = []
        for ranges in _joined(mask):
            ends = [(int(e[a]), int(e[b])) for e, (a, b) in zip(self.edges, ranges, strict=True)]
            if all(begin < end for begin, end in ends):
                out.append((tuple(a for a, _ in ends), tuple(b - a for a, b in ends)))
        return out

    @property
    def never_boxes(self) -> list[Box]:
        """The elements that no box holds."""
        return self.boxes(self.times == 0)

    @property
    def twice_boxes(self) -> list[Box]:
        """The elements that two or more boxes hold."""
        return self.boxes(self.times >= 2)

    def prefix_counts(self, mask: npt.NDArray[np.bool_], ends: Numbers) -> Numbers:
        """For each end the masked elements among the first `end` elements in memory order (row major)."""
        sums = [mask.astype(np.int64)]
        for edges in reversed(self.edges):
            sums.append(sums[-1] @ np.diff(edges))
        sums.reverse()
        out = np.zeros(len(ends), dtype=np.int64)
        rest = ends.copy()
        cells: tuple[Numbers, ...] = ()
        for dim, edges in enumerate(self.edges):
            block = elements(self.shape[dim + 1 :])
            index = np.minimum(rest // block, self.shape[dim])
            rest = rest - index * block
            inner = sums[dim + 1]
            rows = inner[cells] if cells else np.broadcast_to(inner, (len(ends), *inner.shape))
            widths = np.clip(index[:, None] - edges[:-1][None, :], 0, np.diff(edges)[None, :])
            out += (rows * widths).sum(axis=1)
            cells = (*cells, np.clip(np.searchsorted(edges, index, "right") - 1, 0, len(edges) - 2))
        return out


def _joined(mask: npt.NDArray[np.bool_]) -> Iterator[list[tuple[int, int]]]:
    """Ranges of cells per dimension: along the first one, neighbours whose inner cells are alike are one range."""
    if mask.ndim == 0:
        if mask:
            yield []
        return
    flat = mask.reshape(len(mask), -1)
    cuts = np.flatnonzero((flat[1:] != flat[:-1]).any(axis=1)) + 1
    for begin, end in pairwise([0, *cuts.tolist(), len(mask)]):
        if flat[begin].any():
            for inner in _joined(mask[begin]):
                yield [(begin, end), *inner]


def overlap(first: Box, second: Box) -> Box | None:
    """The box of elements that both hold, None when there are none."""
    start, length = [], []
    for a, n, b, m in zip(*first, *second, strict=True):
        begin = max(b, a)
        size = min(a + n, b + m) - begin
        if size <= 0:
            return None
        start.append(begin)
        length.append(size)
    return tuple(start), tuple(length)


def elements(shape: Sequence[int]) -> int:
    """The number of elements of a shape; 1 for a scalar."""
    return reduce(mul, shape, 1)


def grid(shape: tuple[int, ...], boxes: Sequence[Box]) -> Grid | None:
    """How boxes (start, length per dimension; cut to the shape) cover `shape`; None when too fragmented to hold.

    A scalar counts as shape (1,). The result never has more cells than the parameter has elements.
    """
    shape = shape or (1,)
    if elements(shape) == 0:
        return Grid(shape, tuple(np.array([0, n]) for n in shape), np.ones([1] * len(shape), np.int32))
    begins, ends = _clipped(shape, boxes)
    edges = tuple(
        np.unique(np.concatenate([begins[:, dim], ends[:, dim], np.array([0, n])])) for dim, n in enumerate(shape)
    )
    if elements([len(e) for e in edges]) > MAX_GRID_CELLS:
        return None
    steps = np.zeros([len(e) for e in edges], dtype=np.int32)
    _add(steps, edges, (begins, ends))
    for dim in range(len(shape)):
        np.cumsum(steps, axis=dim, out=steps)
    return Grid(shape, edges, steps[tuple(slice(0, -1) for _ in shape)])


def _clipped(shape: tuple[int, ...], boxes: Sequence[Box]) -> tuple[Numbers, Numbers]:
    """First and last corner of each box, [boxes, dims], inside the shape; boxes of other dimensions are left out."""
    fitting = [box for box in boxes if len(box[0]) == len(shape) == len(box[1])]
    begins = np.array([box[0] for box in fitting], dtype=np.int64).reshape(len(fitting), len(shape))
    lengths = np.array([box[1] for box in fitting], dtype=np.int64).reshape(len(fitting), len(shape))
    ends = np.clip(begins + lengths, 0, np.array(shape))
    begins = np.clip(begins, 0, np.array(shape))
    is_filled = (begins < ends).all(axis=1)
    return begins[is_filled], ends[is_filled]


def _add(steps: npt.NDArray[np.int32], edges: tuple[Numbers, ...], corners: tuple[Numbers, Numbers]) -> None:
    """Differences whose running sums over all dimensions are the counts: each corner of each box adds or takes one."""
    places = [[np.searchsorted(e, ends[:, dim]) for ends in corners] for dim, e in enumerate(edges)]
    for choice in range(1 << len(edges)):
        ends = [(choice >> dim) & 1 for dim in range(len(edges))]
        index = tuple(pair[end] for pair, end in zip(places, ends, strict=True))
        np.add.at(steps, index, -1 if sum(ends) % 2 else 1)


def line(found: Grid, width: int, is_final: bool) -> str:
    """The coverage line: `width` cells over the elements in memory order, each showing its worst element.

    "0" never written (or "." while the load may still write it), "2" more than once, "1" once.
    """
    if elements(found.shape) == 0 or width <= 0:
        return "1" * max(width, 0)
    begins, ends = _cells(found, width)
    cells = np.full(width, "1")
    twice, never = found.times >= 2, found.times == 0
    marks = [(twice, "2"), (never, "0")] if is_final else [(never, "."), (twice, "2")]
    for mask, mark in marks:
        if mask.any():
            cells[found.prefix_counts(mask, ends) > found.prefix_counts(mask, begins)] = mark
    return "".join(cells)


def marked(found: Grid, cells: str, mark: str) -> str:
    """A coverage line in which the cells "1" that hold an element of any box of `found` are `mark` instead."""
    if elements(found.shape) == 0 or not cells:
        return cells
    begins, ends = _cells(found, len(cells))
    held = found.times > 0
    touched = found.prefix_counts(held, ends) > found.prefix_counts(held, begins)
    return "".join(mark if cell == "1" and is_in else cell for cell, is_in in zip(cells, touched, strict=True))


def _cells(found: Grid, width: int) -> tuple[Numbers, Numbers]:
    """First element of each cell, and the one after its last."""
    count = elements(found.shape)
    begins = np.arange(width, dtype=np.int64) * count // width
    return begins, np.maximum(begins + 1, np.arange(1, width + 1, dtype=np.int64) * count // width)
