"""Tensors that an engine cut or cast as it read them: which element of the file's tensor each of theirs is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from inspectors.probe.lineage import Memory
from inspectors.probe.moves import Move, Origin
from inspectors.probe.splits import Cut
from inspectors.probe.views import row_major, view_of

Intervals = Sequence[Sequence[tuple[int, int]]]
"""For each dimension the begins and ends that were taken of it, one after the other."""
_STORED = {
    "F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2), "I64": ("int64", 8),
    "I32": ("int32", 4), "I16": ("int16", 2), "I8": ("int8", 1), "U8": ("uint8", 1), "BOOL": ("bool", 1),
    "F8_E4M3": ("float8_e4m3fn", 1), "F8_E5M2": ("float8_e5m2", 1), "F8_E8M0": ("float8_e8m0fnu", 1),
}  # fmt: skip
"""torch's name and the bytes of each dtype of the file format whose elements are whole bytes."""
_ITEMS = dict(_STORED.values())


class Part(NamedTuple):
    """What was read of a tensor whose shape and dtype in the file are `sizes` and `dtype`."""

    sizes: tuple[int, ...]
    dtype: str
    taken: tuple[tuple[tuple[int, int], ...], ...]

    @property
    def cuts(self) -> Iterator[tuple[int, int, int, int]]:
        """Dimension, start, length and size of what was taken where that is not all."""
        for dim, (intervals, size) in enumerate(zip(self.taken, self.sizes, strict=True)):
            if tuple(intervals) != ((0, size),):
                yield from ((dim, begin, end - begin, size) for begin, end in intervals)


def part_of(dtype: Any, sizes: Any, taken: Intervals | None) -> Part | None:
    """The part that an engine says it took; None where it does not say from what."""
    if dtype is None or sizes is None:
        return None
    whole = tuple(int(size) for size in sizes)
    every = taken if taken is not None else [[(0, size)] for size in whole]
    spelled, _ = _STORED.get(str(dtype), (str(dtype).removeprefix("torch."), 0))
    if len(every) != len(whole) or spelled not in _ITEMS:
        return None
    return Part(whole, spelled, tuple(tuple((int(a), int(b)) for a, b in one) for one in every))


def note_part(memory: Memory, name: str, tensor: Any, part: Part | None) -> None:
    """Note what was read under a name: all of a tensor as it lies in the file, or else a part or a cast of it."""
    view = view_of(tensor)
    is_plain = part is None or (view is not None and part.dtype == view.dtype and part.sizes == view.sizes)
    shape = tuple(sum(end - begin for begin, end in one) for one in part.taken) if part is not None else ()
    if part is None or view is None or is_plain or shape != view.sizes or not math.prod(shape):
        memory.read(name, tensor)
        return
    item = _ITEMS[part.dtype]
    origin = Origin(name, part.sizes, item, part.dtype)
    is_cast = part.dtype != view.dtype
    notes = (f"cast {part.dtype} to {view.dtype}",) if is_cast else ()
    strides = row_major(part.sizes, item)
    moves = []
    for box in itertools.product(*(_places(one) for one in part.taken)):
        to = view.offset + sum(here * stride for (here, _, _), stride in zip(box, view.strides, strict=True))
        at = sum(begin * stride for (_, begin, _), stride in zip(box, strides, strict=True))
        sizes = tuple(length for _, _, length in box)
        moves.append(Move(sizes, to, view.strides, view.item, origin, at, strides, item, notes, is_cast))
    with memory.lock:
        buffer = memory.made(tensor, view, "")
        buffer.put(moves)
        buffer.names = (name,)


def _places(intervals: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Where each interval begins in the tensor as read and in the file, and how long it is."""
    here = 0
    for begin, end in intervals:
        yield here, begin, end - begin
        here += end - begin


def cuts_of(part: Part) -> list[Cut]:
    """The cuts as a loader's own would be told."""
    return [Cut(dim, start, length, size, "read") for dim, start, length, size in part.cuts]
