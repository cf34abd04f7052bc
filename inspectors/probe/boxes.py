"""Moves of bytes as the boxes of a parameter that they filled, and the elements of a tensor that came there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from inspectors.probe.lineage import MADE_BEFORE
from inspectors.probe.moves import (
    MAX_BOXES,
    Dim,
    Move,
    Origin,
    Sizes,
    Spread,
    TooFineError,
    levels_of,
    simple,
    spread,
    with_item,
)
from inspectors.probe.views import View, row_major

BYTES, BROADCAST, TRANSPOSED, UNKNOWN = "bytes", "broadcast", "transposed", "unknown"


class Filled(NamedTuple):
    """A box of a parameter: `source_offset` and `source_strides` (per dimension) as in `WeightWritten`.

    `source_start` is empty where the elements are no plain box of `origin`, `source_offset` -1 where there is no map.
    """

    start: Sizes
    length: Sizes
    origin: Origin | None
    source: str
    source_start: Sizes
    source_length: Sizes
    source_offset: int
    source_strides: Sizes

    @property
    def elements(self) -> int:
        """How many elements the box has."""
        return math.prod(self.length)


def filled(move: Move, base: View) -> list[Filled]:
    """The boxes of `base`, in whose storage `move.to` lies; raises TooFineError where they would be too many."""
    whole = with_item(move, base.item)
    if whole is None:
        raise TooFineError
    return [_described(*box, whole) for box in _boxes(simple(whole), base, MAX_BOXES)]


def runs_of(move: Move, base: View, limit: int) -> Sizes:
    """Where a move put its elements, as (first, count) element numbers of a row-major `base`; () for too many."""
    whole = with_item(move, base.item)
    if whole is None or not base.is_row_major:
        return ()
    whole = simple(whole)
    is_run = bool(whole.sizes) and whole.to_strides[-1] == base.item
    outer = list(zip(whole.sizes, whole.to_strides, strict=True))[: -1 if is_run else None]
    if math.prod(n for n, _ in outer) > limit:
        return ()
    starts = [whole.to - base.offset]
    for size, stride in outer:
        starts = [start + index * stride for start in starts for index in range(size)]
    return joined_runs([start // base.item for start in starts], whole.sizes[-1] if is_run else 1)


def joined_runs(starts: list[int], count: int) -> Sizes:
    """(first, count) pairs for `count` elements from each start on, neighbours joined."""
    runs: list[int] = []
    for start in sorted(starts):
        if runs and runs[-2] + runs[-1] == start:
            runs[-1] += count
        else:
            runs += [start, count]
    return tuple(runs)


def place_of(view: View, base: View) -> tuple[Sizes, Sizes] | None:
    """A view as one box of `base` (start, length); None where it is none."""
    try:
        boxes = filled(view.as_move().opaque(), base)
    except TooFineError:
        return None
    return (boxes[0].start, boxes[0].length) if len(boxes) == 1 else None


_Box = tuple[Sizes, Sizes, int, Sizes]


def _boxes(move: Move, base: View, limit: int) -> list[_Box]:
    """Start, length, address in the origin and strides there, per dimension of `base`."""
    own = [stride for size, stride in zip(base.sizes, base.strides, strict=True) if size > 1]
    levels = levels_of([*move.to_strides, *own], base.item)
    if isinstance(levels, tuple):
        return _boxes_by_index(move, base, levels, limit)
    dims: list[Dim] = list(zip(move.sizes, move.to_strides, move.at_strides, strict=True))
    found: list[_Box] = []
    for box in spread(move.to - base.offset, move.at, dims, levels):
        for part in _without_steps(box, levels, base):
            found.append(_placed(part, levels, base))
            if len(found) > limit:
                raise TooFineError
    return found


def _boxes_by_index(move: Move, base: View, clash: tuple[int, int], limit: int) -> list[_Box]:
    stepped = [(n, d) for d, (n, s) in enumerate(zip(move.sizes, move.to_strides, strict=True)) if n > 1 and s in clash]
    size, d = min(stepped, default=(limit + 1, 0))
    if size > limit:
        raise TooFineError
    found: list[_Box] = []
    for index in range(size):
        part = move._replace(
            sizes=(*move.sizes[:d], *move.sizes[d + 1 :]),
            to=move.to + index * move.to_strides[d],
            to_strides=(*move.to_strides[:d], *move.to_strides[d + 1 :]),
            at=move.at + index * move.at_strides[d],
            at_strides=(*move.at_strides[:d], *move.at_strides[d + 1 :]),
        )
        found += _boxes(part, base, limit - len(found))
    return found


def _dimension(level: int, base: View) -> int:
    """The dimension of `base` in which a step of `level` bytes goes."""
    fits = [
        (stride, d)
        for d, (size, stride) in enumerate(zip(base.sizes, base.strides, strict=True))
        if size > 1 and stride <= level
    ]
    return max(fits, default=(0, -1))[1]


def _without_steps(box: Spread, levels: list[int], base: View) -> Iterator[Spread]:
    """The box, or as many as it takes for the elements along every dimension of `base` to be neighbours in a line."""
    for d, stride in enumerate(base.strides):
        used = [k for k, level in enumerate(levels) if box.counts[k] > 1 and _dimension(level, base) == d]
        is_line = not used or (len(used) == 1 and levels[used[0]] == stride) or _is_line(box, levels, used, stride)
        if not is_line:
            k = min(used, key=lambda k: (levels[k] == stride, box.counts[k]))
            for index in range(box.counts[k]):
                starts, counts = list(box.starts), list(box.counts)
                starts[k], counts[k] = starts[k] + index, 1
                yield from _without_steps(
                    Spread(starts, counts, box.payload + index * box.steps[k], box.steps), levels, base
                )
            return
    yield box


def _is_line(box: Spread, levels: list[int], used: list[int], stride: int) -> bool:
    expected, step = stride, box.steps[used[-1]]
    for k in reversed(used):
        if levels[k] != expected or box.steps[k] != step:
            return False
        expected, step = expected * box.counts[k], step * box.counts[k]
    return True


def _placed(box: Spread, levels: list[int], base: View) -> _Box:
    start, length, strides = [0] * len(base.sizes), [1] * len(base.sizes), [0] * len(base.sizes)
    for k in range(len(levels) - 1, -1, -1):
        d = _dimension(levels[k], base)
        if d < 0:
            if box.starts[k] or box.counts[k] > 1:
                raise TooFineError
            continue
        start[d] += box.starts[k] * levels[k] // base.strides[d]
        if box.counts[k] > 1:
            strides[d] = strides[d] if length[d] > 1 else box.steps[k]
            length[d] *= box.counts[k]
    if any(s < 0 or s + n > size for s, n, size in zip(start, length, base.sizes, strict=True)):
        raise TooFineError
    return tuple(start), tuple(length), box.payload, tuple(strides)


def _described(start: Sizes, length: Sizes, at: int, strides: Sizes, move: Move) -> Filled:
    origin = move.origin
    notes = list(move.notes)
    if origin is None:
        return Filled(start, length, None, ", ".join(dict.fromkeys(notes)) or UNKNOWN, (), (), -1, ())
    if not origin.is_exact:
        return Filled(start, length, origin, ", ".join(dict.fromkeys((MADE_BEFORE, *notes))), (), (), -1, ())
    is_whole = move.at_item == origin.item and not any(n % origin.item for n in (at, *strides))
    unit = origin.item if is_whole else 1
    if not is_whole:
        notes.insert(0, BYTES)
    steps = [stride for n, stride in zip(length, strides, strict=True) if n > 1]
    if not all(steps):
        notes.append(BROADCAST)
    down = [abs(stride) for stride in steps if stride]
    if down != sorted(down, reverse=True):
        notes.append(TRANSPOSED)
    box = _source_box(origin, at, list(zip(length, strides, strict=True)), move.at_item)
    source_start, source_length = box if box is not None else ((), ())
    said = ", ".join(dict.fromkeys(notes))
    exact = tuple(stride // unit for stride in strides)
    return Filled(start, length, origin, said, source_start, source_length, at // unit, exact)


def _source_box(origin: Origin, at: int, dims: list[tuple[int, int]], item: int) -> tuple[Sizes, Sizes] | None:
    """The bytes as a plain box of the origin's elements."""
    dims = [(n, abs(stride)) for n, stride in dims if n > 1 and stride] if all(s >= 0 for _, s in dims) else [(0, 0)]
    sizes = tuple(n for n, _ in dims)
    strides = tuple(stride for _, stride in dims)
    reading = with_item(Move(sizes, at, strides, item, None, at, strides, item), origin.item)
    if reading is None or 0 in sizes:
        return None
    base = View(0, 0, origin.sizes, row_major(origin.sizes, origin.item), origin.item, "")
    try:
        boxes = _boxes(simple(reading), base, 1)
    except TooFineError:
        return None
    return (boxes[0][0], boxes[0][1]) if len(boxes) == 1 else None
