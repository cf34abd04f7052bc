"""Moves into a parameter as the events that tell of them."""

from __future__ import annotations

from typing import Any

from inspectors.probe.boxes import UNKNOWN, filled, joined_runs, place_of, runs_of
from inspectors.probe.events import WeightWritten
from inspectors.probe.moves import Move, TooFineError
from inspectors.probe.places import TooManyPlacesError
from inspectors.probe.views import View

MAX_RUNS = 4096


MAX_CACHED = 4096
_cache: dict[tuple[Any, ...], list[dict[str, Any]]] = {}


def written(name: str, base: View, move: Move, op: str) -> list[WeightWritten]:
    """What a move wrote into the parameter: box by box, or its places alone where the boxes are too many.

    Layers are alike: what one move into a parameter means is worked out once for all that are laid out as it is.
    """
    origin = move.origin._replace(name="") if move.origin is not None else None
    key = (base[2:], op, move._replace(to=move.to - base.offset, origin=origin))
    known = _cache.get(key)
    if known is None:
        if len(_cache) > MAX_CACHED:
            _cache.clear()
        known = _cache[key] = [vars(body) for body in _worked_out(name, base, move, op)]
    bodies = []
    for facts in known:
        body = object.__new__(WeightWritten)
        body.__dict__.update(facts, parameter=name)
        bodies.append(body)
    return bodies


def _worked_out(name: str, base: View, move: Move, op: str) -> list[WeightWritten]:
    try:
        boxes = filled(move, base)
    except TooFineError:
        return [_unmapped(name, base, move, op)]
    return [
        WeightWritten(
            name, box.start, box.length, box.elements, box.source, box.source_start, box.source_length, op,
            source_offset=box.source_offset, source_strides=box.source_strides,
        )
        for box in boxes
    ]  # fmt: skip


def _unmapped(name: str, base: View, move: Move, op: str) -> WeightWritten:
    elements = -(-move.elements * move.item // base.item)
    runs = runs_of(move, base, MAX_RUNS)
    if runs:
        return WeightWritten(name, (), (), elements, UNKNOWN, (), (), op, runs=runs)
    view = View(base.storage, move.to, move.sizes, move.to_strides, move.item, "")
    start, length = place_of(view, base) or ((), ())
    return WeightWritten(name, start, length, elements, UNKNOWN, (), (), op)


def placed(name: str, base: View, places: TooManyPlacesError, op: str) -> WeightWritten:
    """A write to places that are known, but too many to say of each what came there."""
    count, rest = divmod(places.length, base.item)
    starts = [offset - base.offset for offset in places.offsets]
    elements = len(starts) * count
    if rest or not base.is_row_major or any(start % base.item for start in starts):
        return WeightWritten(name, (), (), elements, UNKNOWN, (), (), op)
    runs = joined_runs([start // base.item for start in starts], count)
    runs = runs if len(runs) <= 2 * MAX_RUNS else ()
    return WeightWritten(name, (), (), elements, UNKNOWN, (), (), op, runs=runs)
