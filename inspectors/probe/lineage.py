"""Where the elements of a view lie: strided views as boxes of a base tensor, and pieces of copies as their sources."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class View:
    """A strided tensor: offset and strides in elements of its storage."""

    storage: int
    offset: int
    sizes: Sizes
    strides: Sizes
    item_bytes: int
    dtype: str = ""

    @property
    def elements(self) -> int:
        """How many elements the view shows."""
        return math.prod(self.sizes)

    def part(self, start: Sizes, sizes: Sizes) -> View:
        """The sub-view that begins at index `start`."""
        if not any(start) and sizes == self.sizes:
            return self
        moved = sum(index * stride for index, stride in zip(start, self.strides, strict=True))
        return View(self.storage, self.offset + moved, sizes, self.strides, self.item_bytes, self.dtype)

    def expanded(self, sizes: Sizes) -> View:
        """Broadcast to `sizes` as an elementwise copy does: stride 0 where one element stands for many."""
        if sizes == self.sizes:
            return self
        missing = len(sizes) - len(self.sizes)
        strides = [0] * missing + [
            0 if have == 1 and want != 1 else stride
            for have, want, stride in zip(self.sizes, sizes[missing:], self.strides, strict=True)
        ]
        return replace(self, sizes=sizes, strides=tuple(strides))


@dataclass(frozen=True)
class Box:
    """A view as a plain box of its base. `order` names, along the base's dimensions, the view's dimension there."""

    start: Sizes
    length: Sizes
    order: Sizes
    is_broadcast: bool = False


def box_of(view: View, base: View) -> Box | None:
    """`view` as a box of `base`, which must lie in the same storage; None when it is not one (steps, overlaps).

    A view with other dimensions than its base, such as rows of bytes in a flat parameter, is a box without an order.
    """
    if view.storage != base.storage or view.item_bytes != base.item_bytes:
        return None
    return _laid(view, base) or _run(view, base)


def _run(view: View, base: View) -> Box | None:
    """Contiguous elements inside one run of the base's last dimension."""
    if not base.sizes or not _is_contiguous(view) or not _is_contiguous(base) or len(view.sizes) < 2:
        return None
    place, run, start = view.offset - base.offset, base.sizes[-1], []
    if place < 0 or place + view.elements > base.elements or place % run + view.elements > run:
        return None
    for stride in base.strides:
        index, place = divmod(place, stride)
        start.append(index)
    return Box(tuple(start), (*(1 for _ in base.sizes[:-1]), view.elements), ())


def _is_contiguous(view: View) -> bool:
    expected = 1
    for size, stride in zip(reversed(view.sizes), reversed(view.strides), strict=True):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return view.elements > 0


def _laid(view: View, base: View) -> Box | None:
    dims = sorted((d for d, n in enumerate(base.sizes) if n > 1), key=lambda d: -base.strides[d])
    start, length = [0] * len(base.sizes), [1] * len(base.sizes)
    order: dict[int, int] = {}
    rest = view.offset - base.offset
    for d in dims:
        start[d], rest = divmod(rest, base.strides[d]) if base.strides[d] else (0, rest)
        if not 0 <= start[d] < base.sizes[d]:
            return None
    if rest:
        return None
    for j, (n, stride) in enumerate(zip(view.sizes, view.strides, strict=True)):
        if n > 1 and stride and not _lay(j, n, stride, dims, base, start, length, order):
            return None
    is_broadcast = any(n > 1 and not stride for n, stride in zip(view.sizes, view.strides, strict=True))
    return Box(tuple(start), tuple(length), tuple(order[d] for d in sorted(order)), is_broadcast)


def _lay(
    j: int, n: int, stride: int, dims: list[int], base: View, start: list[int], length: list[int], order: dict[int, int]
) -> bool:
    """Lay view dimension `j` along the base dimension of its stride, and along the next larger ones it runs over."""
    place = next((p for p, d in enumerate(dims) if base.strides[d] == stride), None)
    while n > 1:
        if place is None or place < 0:
            return False
        d = dims[place]
        if d in order or base.strides[d] != stride:
            return False
        order[d] = j
        if start[d] + n <= base.sizes[d]:
            length[d] = n
            return True
        if start[d] or n % base.sizes[d]:
            return False
        length[d], n, stride, place = base.sizes[d], n // base.sizes[d], stride * base.sizes[d], place - 1
    return True


@dataclass(frozen=True)
class Piece:
    """Part `start`/`length` of a view's index space, and the tensor it shows: `source` None when that is not known."""

    start: Sizes
    length: Sizes
    source: View | None
    notes: tuple[str, ...] = ()

    @property
    def elements(self) -> int:
        """How many elements the piece holds."""
        return math.prod(self.length)


@dataclass
class Buffer:
    """Memory that a loader made or was given; `pieces` say where the elements of `layout` came from, newest last."""

    layout: View
    is_root: bool = False
    pieces: list[Piece] = field(default_factory=list)

    def shown(self, view: View) -> list[Piece]:
        """What `view` shows, in pieces of its own index space."""
        if self.is_root:
            return [Piece((0,) * len(view.sizes), view.sizes, view)]
        box = box_of(view, self.layout)
        dims = _plain_dims(view, self.layout) if box is not None else None
        if box is None or dims is None:
            notes = self.pieces[0].notes if len(self.pieces) == 1 else ()
            return [Piece((0,) * len(view.sizes), view.sizes, None, (*notes, "unknown"))]
        unique = view.elements // math.prod(n for j, n in enumerate(view.sizes) if j not in dims.values() or n == 1)
        found, covered = [], 0
        for piece in reversed(self.pieces):  # the newest hides what was there before
            cut = _cut(piece, box, dims, len(view.sizes)) if covered < unique else None
            if cut is not None:
                found.append(cut)
                covered += cut.elements
        if covered != unique:
            return [Piece((0,) * len(view.sizes), view.sizes, None, ("unknown",))]
        return [_widened(piece, view, dims) for piece in found]


def _plain_dims(view: View, base: View) -> dict[int, int] | None:
    """Base dimension → the one view dimension that runs along it; None when a view dimension runs along several."""
    box = box_of(view, base)
    if box is None:
        return None
    dims = [d for d, n in enumerate(base.sizes) if n > 1 and box.length[d] > 1]
    if len(set(box.order)) != len(box.order) or len(dims) != len(box.order):
        return None
    return dict(zip(dims, box.order, strict=True))


def _cut(piece: Piece, box: Box, dims: dict[int, int], rank: int) -> Piece | None:
    """The part of `piece` (in base coordinates) inside `box`, in the view's coordinates."""
    start, length, source_start, strides = [0] * rank, [1] * rank, [], [0] * rank
    for d, (begin, size) in enumerate(zip(piece.start, piece.length, strict=True)):
        low, high = max(begin, box.start[d]), min(begin + size, box.start[d] + box.length[d])
        if high <= low:
            return None
        source_start.append(low - begin)
        if d in dims:
            start[dims[d]], length[dims[d]] = low - box.start[d], high - low
            strides[dims[d]] = piece.source.strides[d] if piece.source is not None else 0
    source = None
    if piece.source is not None:
        at = piece.source.part(tuple(source_start), piece.source.sizes)
        source = replace(at, sizes=tuple(length), strides=tuple(strides))
    return Piece(tuple(start), tuple(length), source, piece.notes)


def _widened(piece: Piece, view: View, dims: dict[int, int]) -> Piece:
    """Give the dimensions along which the view repeats its elements their full length again."""
    length = tuple(n if j not in dims.values() else piece.length[j] for j, n in enumerate(view.sizes))
    source = replace(piece.source, sizes=length) if piece.source is not None else None
    return Piece(piece.start, length, source, piece.notes)


def single_steps(target: View, source: View | None, limit: int) -> Iterator[tuple[View, View | None]]:
    """Split a strided write into boxes: `target` itself, or one view per index of its outermost stepped dimension."""
    for j, n in enumerate(target.sizes):
        if 1 < n <= limit:
            sizes = (*target.sizes[:j], 1, *target.sizes[j + 1 :])
            for index in range(n):
                start = tuple(index if d == j else 0 for d in range(len(sizes)))
                yield target.part(start, sizes), source.part(start, sizes) if source is not None else None
            return
    yield target, source
