"""Affine maps of bytes: which elements of one strided box came from which of another, and how two such maps meet."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

Sizes = tuple[int, ...]
MAX_BOXES = 256


class TooFineError(Exception):
    """Two strided boxes meet in more places than are worth writing down."""


class Origin(NamedTuple):
    """A tensor that elements can come from; `is_exact` False where a place in it is none on disk."""

    name: str
    sizes: Sizes
    item: int
    dtype: str
    is_exact: bool = True


class Move(NamedTuple):
    """Element [i] of a box of `sizes`: `item` bytes at `to + i·to_strides` hold what `at + i·at_strides` held.

    Addresses are in bytes; `at` is one in `origin`, row-major, where that is known: the notes say what else it is.
    `is_cast` elements are values, not bytes, so that a part of one is nothing.
    """

    sizes: Sizes
    to: int
    to_strides: Sizes
    item: int
    origin: Origin | None
    at: int
    at_strides: Sizes
    at_item: int
    notes: tuple[str, ...] = ()
    is_cast: bool = False

    @property
    def elements(self) -> int:
        """How many elements were moved."""
        return math.prod(self.sizes)

    @property
    def is_opaque(self) -> bool:
        """Whether the elements come from no place: constants, what was computed, and what is not known."""
        return self.origin is None and not any(self.at_strides)

    def opaque(self, *notes: str) -> Move:
        """The same place, filled from nowhere that is known."""
        zero = (0,) * len(self.sizes)
        return Move(self.sizes, self.to, self.to_strides, self.item, None, 0, zero, self.item, (*self.notes, *notes))


class Spread(NamedTuple):
    """A box whose dimensions are the digits of its addresses, and an affine function of them (the payload)."""

    starts: list[int]
    counts: list[int]
    payload: int
    steps: list[int]


Dim = tuple[int, int, int]
"""Size, stride, payload stride."""


def span(offset: int, sizes: Sizes, strides: Sizes, item: int) -> tuple[int, int]:
    """The first byte of a strided box and the one after its last."""
    low = high = offset
    for size, stride in zip(sizes, strides, strict=True):
        if stride < 0:
            low += (size - 1) * stride
        else:
            high += (size - 1) * stride
    return low, high + item


def simple(move: Move) -> Move:
    """The same map in as few dimensions as it needs: upwards, outermost first, neighbours joined, repeats left out."""
    to, at = move.to, move.at
    dims: list[Dim] = []
    for size, to_stride, at_stride in zip(move.sizes, move.to_strides, move.at_strides, strict=True):
        if size == 1 or to_stride == at_stride == 0:
            continue
        if to_stride < 0:
            to, at = to + (size - 1) * to_stride, at + (size - 1) * at_stride
            to_stride, at_stride = -to_stride, -at_stride  # noqa: PLW2901 - the same dimension, walked upwards
        dims.append((size, to_stride, at_stride))
    dims.sort(key=lambda dim: -dim[1])
    joined: list[Dim] = []
    for size, to_stride, at_stride in dims:
        if joined and joined[-1][1:] == (to_stride * size, at_stride * size):
            joined[-1] = (joined[-1][0] * size, to_stride, at_stride)
        else:
            joined.append((size, to_stride, at_stride))
    sizes, to_strides, at_strides = zip(*joined, strict=True) if joined else ((), (), ())
    return move._replace(sizes=sizes, to=to, to_strides=to_strides, at=at, at_strides=at_strides)


def with_item(move: Move, item: int) -> Move | None:
    """The same map in elements of `item` bytes; None where those are not moved as wholes."""
    if move.item == item:
        return move
    if move.is_cast:
        return None
    if move.item > item:
        return _split(move, item, 0 if move.origin is None else item)
    found = simple(move)
    times, rest = divmod(item, move.item)
    for d, (size, to, at) in enumerate(zip(found.sizes, found.to_strides, found.at_strides, strict=True)):
        is_run = to == move.item and (at == move.item or move.origin is None)
        if is_run and not rest and size % times == 0 and found.to % item == 0:
            sizes = (*found.sizes[:d], size // times, *found.sizes[d + 1 :])
            to_strides = (*found.to_strides[:d], to * times, *found.to_strides[d + 1 :])
            at_strides = (*found.at_strides[:d], at * times, *found.at_strides[d + 1 :])
            return found._replace(sizes=sizes, to_strides=to_strides, at_strides=at_strides, item=item, at_item=item)
    return None


def _split(move: Move, item: int, step: int) -> Move | None:
    times, rest = divmod(move.item, item)
    if rest:
        return None
    return move._replace(
        sizes=(*move.sizes, times),
        to_strides=(*move.to_strides, item),
        at_strides=(*move.at_strides, step),
        item=item,
        at_item=item,
    )


def levels_of(strides: Sequence[int], item: int) -> list[int] | tuple[int, int]:
    """The strides as place values, largest first, each a multiple of the next; or the first two that are not."""
    levels = sorted({item, *strides} - {0}, reverse=True)
    for large, small in itertools.pairwise(levels):
        if large % small:
            return large, small
    return levels


def spread(offset: int, payload: int, dims: Sequence[Dim], levels: list[int]) -> list[Spread]:
    """A strided box by the digits of its addresses; several boxes where it runs over the ends of rows."""
    out: list[Spread] = []
    place = {level: n for n, level in enumerate(levels)}
    if any(n > 1 and not s for n, s, _ in dims):
        raise TooFineError  # several elements in one place
    _spread(offset, payload, [(n, place[s], p) for n, s, p in dims if n > 1], levels, out)
    return out


def _spread(offset: int, payload: int, dims: list[Dim], levels: list[int], out: list[Spread]) -> None:
    if len(out) >= MAX_BOXES:
        raise TooFineError
    digits, rest = [], offset
    for level in levels:
        digit, rest = divmod(rest, level)
        digits.append(digit)
    if rest:
        raise TooFineError
    counts, steps = [1] * len(levels), [0] * len(levels)
    for k, (size, place, step) in enumerate(dims):
        others = [*dims[:k], *dims[k + 1 :]]
        radix = levels[place - 1] // levels[place] if place else 0
        if counts[place] > 1:  # two dimensions of one stride: elements that overlap
            for index in range(size):
                _spread(offset + index * levels[place], payload + index * step, others, levels, out)
            return
        if radix and digits[place] + size > radix:
            for first, dims_of_part in _parts(size, place, step, digits[place], radix):
                _spread(offset + first * levels[place], payload + first * step, [*others, *dims_of_part], levels, out)
            return
        counts[place], steps[place] = size, step
    out.append(Spread(digits, counts, payload, steps))


def _parts(size: int, place: int, step: int, digit: int, radix: int) -> Iterator[tuple[int, list[Dim]]]:
    """A dimension that runs over the end of its row: up to there, whole rows, and what is left; (first, dimensions)."""
    head = (radix - digit) % radix
    if head:
        yield 0, [(head, place, step)] if head > 1 else []
    rows, tail = divmod(size - head, radix)
    if rows:
        whole = [(radix, place, step)]
        yield head, [*whole, (rows, place - 1, step * radix)] if rows > 1 else whole
    if tail:
        yield head + rows * radix, [(tail, place, step)] if tail > 1 else []


def meet(query: Move, piece: Move) -> tuple[list[Move], list[Move]]:
    """What `query` reads of the place that `piece` filled, traced to the piece's origin, and the rest of the query.

    Raises TooFineError where there is no telling in a sensible number of boxes.
    """
    low, high = span(query.at, query.sizes, query.at_strides, query.at_item)
    begin, end = span(piece.to, piece.sizes, piece.to_strides, piece.item)
    if high <= begin or end <= low:
        return [], [query]
    if query.at_item == piece.item:
        hit = _met_at_once(query, piece, is_inside=begin <= low and high <= end)
        if hit is not None:
            return [hit], []
    unit = math.gcd(query.at_item, piece.item)
    if unit < query.at_item:
        if query.is_cast:
            raise TooFineError
        parts = _split(query, unit, unit)
        if parts is None:
            raise TooFineError
        hits, rest = meet(parts, piece)
        return [with_item(hit, query.item) or hit for hit in hits], [with_item(one, query.item) or one for one in rest]
    if unit < piece.item:
        piece = (piece.opaque("unknown") if piece.is_cast else piece)._replace(is_cast=False)
        piece = _split(piece, unit, 0 if piece.origin is None else unit) or piece
    query = _upwards(query)
    reading = [d for d in zip(query.sizes, query.at_strides, query.to_strides, strict=True) if d[0] > 1 and d[1]]
    repeated = [d for d in zip(query.sizes, query.at_strides, query.to_strides, strict=True) if d[0] > 1 and not d[1]]
    filled = [d for d in zip(piece.sizes, piece.to_strides, piece.at_strides, strict=True) if d[0] > 1]
    levels = levels_of([stride for _, stride, _ in (*reading, *filled)], unit)
    if isinstance(levels, tuple):
        return _meet_by_index(query, piece, levels)
    return _meet_on(levels, query, piece, reading, repeated, filled)


def _met_at_once(query: Move, piece: Move, *, is_inside: bool) -> Move | None:
    """The two commonest cases, which all others agree with: a piece without gaps, one read as it was made."""
    if is_inside and piece.to_strides == (piece.item,):
        step, item = piece.at_strides[0], piece.item
        at = piece.at + (query.at - piece.to) // item * step
        strides = tuple(stride // item * step for stride in query.at_strides)
    elif query.at == piece.to and query.sizes == piece.sizes and query.at_strides == piece.to_strides:
        at, strides = piece.at, piece.at_strides
    else:
        return None
    notes = (*piece.notes, *query.notes) if piece.notes and query.notes else piece.notes or query.notes
    return query._replace(
        origin=piece.origin,
        at=at,
        at_strides=strides,
        at_item=piece.at_item,
        notes=tuple(dict.fromkeys(notes)),
        is_cast=query.is_cast or piece.is_cast,
    )


def _upwards(query: Move) -> Move:
    """The same query with no negative strides on the side that it reads."""
    if all(stride >= 0 for stride in query.at_strides):
        return query
    turned = simple(_turned(query))
    return _turned(turned)


def _turned(move: Move) -> Move:
    """The map seen from its other side."""
    return move._replace(to=move.at, to_strides=move.at_strides, at=move.to, at_strides=move.to_strides)


def _meet_by_index(query: Move, piece: Move, clash: tuple[int, int]) -> tuple[list[Move], list[Move]]:
    """Strides that do not fit into one another: take the shorter of the clashing dimensions index by index."""
    found: list[tuple[int, bool, int]] = []
    for is_query, sizes, strides in ((True, query.sizes, query.at_strides), (False, piece.sizes, piece.to_strides)):
        found += [(n, is_query, d) for d, (n, s) in enumerate(zip(sizes, strides, strict=True)) if n > 1 and s in clash]
    size, is_query, d = min(found, default=(MAX_BOXES + 1, True, 0))
    if size > MAX_BOXES:
        raise TooFineError
    hits: list[Move] = []
    if is_query:
        rests: list[Move] = []
        for index in range(size):
            hit, rest = meet(_at_index(query, d, index), piece)
            hits, rests = hits + hit, rests + rest
            _require_few(hits, rests)
        return hits, rests
    left = [query]
    for index in range(size):
        part, remaining = _at_index(piece, d, index), left
        left = []
        for one in remaining:
            hit, rest = meet(one, part)
            hits, left = hits + hit, left + rest
            _require_few(hits, left)
    return hits, left


def _require_few(*lists: list[Move]) -> None:
    if sum(map(len, lists)) > 4 * MAX_BOXES:
        raise TooFineError


def _at_index(move: Move, d: int, index: int) -> Move:
    return move._replace(
        sizes=(*move.sizes[:d], *move.sizes[d + 1 :]),
        to=move.to + index * move.to_strides[d],
        to_strides=(*move.to_strides[:d], *move.to_strides[d + 1 :]),
        at=move.at + index * move.at_strides[d],
        at_strides=(*move.at_strides[:d], *move.at_strides[d + 1 :]),
    )


def _meet_on(
    levels: list[int], query: Move, piece: Move, reading: list[Dim], repeated: list[Dim], filled: list[Dim]
) -> tuple[list[Move], list[Move]]:
    filled_boxes = spread(piece.to, piece.at, filled, levels)
    hits: list[Move] = []
    left = spread(query.at, query.to, reading, levels)
    for have in filled_boxes:
        remaining, left = left, []
        for want in remaining:
            hit, rest = _cut(want, have)
            left += rest
            if hit is not None:
                hits.append(_found(hit, have, query, piece, repeated))
        if len(left) + len(hits) > 4 * MAX_BOXES:
            raise TooFineError
    return hits, [_left(one, levels, query, repeated) for one in left]


def _cut(want: Spread, have: Spread) -> tuple[Spread | None, list[Spread]]:
    """The part of `want` inside `have`, and the parts outside."""
    lows = [max(a, b) for a, b in zip(want.starts, have.starts, strict=True)]
    highs = [
        min(a + m, b + n)
        for a, m, b, n in zip(want.starts, want.counts, have.starts, have.counts, strict=True)
    ]  # fmt: skip
    if any(high <= low for low, high in zip(lows, highs, strict=True)):
        return None, [want]
    rest: list[Spread] = []
    for k, (low, high) in enumerate(zip(lows, highs, strict=True)):
        start, stop = want.starts[k], want.starts[k] + want.counts[k]
        rest += [_narrowed(want, k, a, b) for a, b in ((start, low), (high, stop)) if b > a]
        want = _narrowed(want, k, low, high)
    return want, rest


def _narrowed(box: Spread, k: int, low: int, high: int) -> Spread:
    starts, counts = list(box.starts), list(box.counts)
    starts[k], counts[k] = low, high - low
    return Spread(starts, counts, box.payload + (low - box.starts[k]) * box.steps[k], box.steps)


def _found(hit: Spread, have: Spread, query: Move, piece: Move, repeated: list[Dim]) -> Move:
    at = have.payload + sum(
        (low - start) * step for low, start, step in zip(hit.starts, have.starts, have.steps, strict=True)
    )
    dims = [
        (count, to, step) for count, to, step in zip(hit.counts, hit.steps, have.steps, strict=True) if count > 1
    ] + [(size, to, 0) for size, _, to in repeated]
    sizes, to_strides, at_strides = zip(*dims, strict=True) if dims else ((), (), ())
    notes = tuple(dict.fromkeys((*piece.notes, *query.notes)))
    is_cast = query.is_cast or piece.is_cast
    move = Move(sizes, hit.payload, to_strides, query.item, piece.origin, at, at_strides, piece.at_item, notes, is_cast)
    return simple(move)


def _left(box: Spread, levels: list[int], query: Move, repeated: list[Dim]) -> Move:
    at = sum(start * level for start, level in zip(box.starts, levels, strict=True))
    dims = [(count, to, level) for count, to, level in zip(box.counts, box.steps, levels, strict=True) if count > 1] + [
        (size, to, 0) for size, _, to in repeated
    ]
    sizes, to_strides, at_strides = zip(*dims, strict=True) if dims else ((), (), ())
    return query._replace(sizes=sizes, to=box.payload, to_strides=to_strides, at=at, at_strides=at_strides)
