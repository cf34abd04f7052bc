"""From an element of a parameter to its bytes in the checkpoint, through post-processing and the load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inspectors.probe.events import MethodSelected, SkipDecided, WeightRepacked
from sessions.checkpoint import tensor
from sessions.coverage import Box, elements
from sessions.event import Event
from sessions.ledger import Call, Write
from sessions.maps import AffineMap, is_inside, map_of, row_major, unravelled
from sessions.parameters import ParameterView, parameter
from sessions.session import Session
from sessions.stored import Stored

COMPUTED = "computed"
EXACT = "exact"
UNKNOWN = "unknown"
REMOVED = "removed"


@dataclass(frozen=True)
class Source:
    """Where a value came from: element `index` of a checkpoint tensor, bytes `begin`..`end`-1 of its file.

    `certainty`: "exact"; "computed" (made from that tensor, not a copy of one element) or "unknown": then `index` is
    None and the bytes are those of the tensor, or of the part of it that was taken. `bit` is where in the first byte
    an element of less than a byte begins. `tensor` is None for one that is not in the header.
    """

    name: str
    tensor: Stored | None
    certainty: str
    said: str
    index: tuple[int, ...] | None = None
    begin: int = -1
    end: int = -1
    bit: int = 0


@dataclass(frozen=True)
class Filled:
    """One write of an element, with its call (None: outside of any) and where the value came from."""

    write: Write
    call: Call | None
    source: Source
    is_sure: bool = True


@dataclass(frozen=True)
class Repack:
    """What post-processing left at an element: `index` is the element of `from_parameter` as the load left it."""

    position: int
    body: WeightRepacked
    index: tuple[int, ...] | None


@dataclass(frozen=True)
class Element:
    """One element of one parameter on one rank: all writes in order, the decision behind it, what became of it.

    `decision` are the events of the skip decision and of the choice of the method, where recorded. `repacks` are
    those that filled it (it was asked for as processed), `became` those that took it.
    """

    view: ParameterView
    index: tuple[int, ...]
    filled: tuple[Filled, ...]
    decision: tuple[Event, ...]
    repacks: tuple[Repack, ...]
    became: tuple[tuple[int, WeightRepacked, tuple[Box, ...]], ...]
    is_processed: bool


def names_of_parameters(session: Session) -> list[str]:
    """The names of all parameters, of those that were processed too, in order."""
    rows = (
        row for kind in ("parameter.registered", "loader.called", "weight.repacked") for row in _named(session, kind)
    )
    return list(dict.fromkeys(rows))


def _named(session: Session, kind: str) -> list[str]:
    return [row[6] for row in session.rows(kind, ("parameter",)) if row[6]]


def repacks_into(session: Session, name: str) -> list[tuple[int, int, WeightRepacked]]:
    """(position, rank, event) of what post-processing wrote into a parameter, in order."""
    return _repacks(session, "parameter", name)


def repacks_from(session: Session, name: str) -> list[tuple[int, int, WeightRepacked]]:
    """(position, rank, event) of what post-processing made from a parameter, in order."""
    return _repacks(session, "from_parameter", name)


def _repacks(session: Session, which: str, name: str) -> list[tuple[int, int, WeightRepacked]]:
    rows = session.rows("weight.repacked", (), where=(which, name))
    events = session.events([row[0] for row in rows])
    return [(event.position, event.rank, event.body) for event in events if isinstance(event.body, WeightRepacked)]


def element(
    session: Session, name: str, index: Sequence[int], rank: int, *, is_processed: bool = False
) -> Element | None:
    """All that is recorded of one element; None when that rank has no such parameter.

    `index` counts in the parameter as it was loaded, or with `is_processed` as post-processing left it, and must lie in
    that shape. Reads what concerns this parameter alone.
    """
    at = tuple(index)
    view = next((view for view in parameter(session, name) if view.rank == rank), None)
    repacks: tuple[Repack, ...] = ()
    if is_processed:
        into = [(n, body) for n, r, body in repacks_into(session, name) if r == rank and _holds(body, at)]
        repacks = tuple(_repack(session, n, body, at, rank) for n, body in into)
        told = repacks[-1] if repacks else None
        if told is None or told.index is None:
            origin = told.body.from_parameter if told is not None else name
            view = next((v for v in parameter(session, origin or name) if v.rank == rank), view)
            return None if view is None else Element(view, at, (), _decision(session, view), repacks, (), True)
        view = next((v for v in parameter(session, told.body.from_parameter) if v.rank == rank), view)
        at = told.index
    if view is None:
        return None
    filled = tuple(_filled(session, view, write, at) for write in view.writes if _may_hold(view, write, at))
    made = [(n, body, _images(body, view, at)) for n, r, body in repacks_from(session, view.name) if r == rank]
    gone = [(n, body, ()) for n, r, body in repacks_into(session, view.name) if r == rank and body.source == REMOVED]
    became = (*((n, body, boxes or ()) for n, body, boxes in made if boxes or boxes is None), *gone)
    return Element(view, at, filled, _decision(session, view), repacks, became, is_processed)


def _holds(body: WeightRepacked, index: Sequence[int]) -> bool:
    return len(body.start) == len(index) == len(body.length) and is_inside(index, body.start, body.length)


def _repack(session: Session, position: int, body: WeightRepacked, index: tuple[int, ...], rank: int) -> Repack:
    if body.source_offset < 0 or len(body.source_strides) != len(body.start) or not body.from_parameter:
        return Repack(position, body, None)
    before = next((v for v in parameter(session, body.from_parameter) if v.rank == rank), None)
    if before is None:
        return Repack(position, body, None)
    number = AffineMap(body.start, body.length, body.source_offset, body.source_strides).source(index)
    return Repack(position, body, unravelled(number, before.shape))


def _images(body: WeightRepacked, view: ParameterView, index: tuple[int, ...]) -> tuple[Box, ...] | None:
    """The elements of the processed parameter that hold this one, None where that is not known."""
    if body.source_offset < 0 or len(body.source_strides) != len(body.start):
        return None
    number = sum(i * stride for i, stride in zip(index, row_major(view.shape), strict=True))
    at = AffineMap(body.start, body.length, body.source_offset, body.source_strides)
    return tuple(at.boxes_from(number, number + 1))


def _may_hold(view: ParameterView, write: Write, index: Sequence[int]) -> bool:
    """False for a write that is known not to have touched the element."""
    if not write.elements:
        return False
    placed = view.boxes_of(write)
    return not placed or any(is_inside(index or (0,), *box) for box in placed)


def _filled(session: Session, view: ParameterView, write: Write, index: tuple[int, ...]) -> Filled:
    found = view.ledger.call_at.get(write.position)
    is_sure = view.is_placed(write)
    return Filled(write, found[1] if found is not None else None, _source(session, view, write, index), is_sure)


def _source(session: Session, view: ParameterView, write: Write, index: tuple[int, ...]) -> Source:
    name = write.checkpoint_name
    if write.source == "constant":
        return Source("", None, EXACT, "a constant, no byte of the checkpoint")
    place = session.kept(f"stored {name}", lambda: tensor(session, name))
    if place is None:
        return Source(name, None, UNKNOWN, f"{name or 'its tensor'} is not in the checkpoint's header")
    at = map_of(write, place.shape) if view.is_placed(write) else None
    number = at.source(index) if at is not None and not write.runs else _number_in_runs(view, write, index)
    if number is not None and place.bits and 0 <= number < elements(place.shape):
        begin, end, bit = place.bytes_of(number)
        return Source(name, place, EXACT, write.source, unravelled(number, place.shape), begin, end, bit)
    certainty = COMPUTED if "computed" in write.source else UNKNOWN
    begin, end = _taken_bytes(write, place)
    return Source(name, place, certainty, write.source or "which element of it is not recorded", None, begin, end)


def _number_in_runs(view: ParameterView, write: Write, index: tuple[int, ...]) -> int | None:
    """The element number of a write in runs whose values were taken one after the other."""
    if not write.runs or write.source_offset < 0 or len(write.source_strides) != 1:
        return None
    at, done = sum(i * stride for i, stride in zip(index, row_major(view.shape), strict=True)), 0
    for begin, count in zip(write.runs[::2], write.runs[1::2], strict=False):
        if begin <= at < begin + count:
            return write.source_offset + (done + at - begin) * write.source_strides[0]
        done += count
    return None


def _taken_bytes(write: Write, place: Stored) -> tuple[int, int]:
    """From the first to the last byte of what a write took; of all the tensor where that is not known."""
    if len(write.source_start) != len(place.shape) or not place.bits or not write.source_start:
        return place.begin, place.end
    strides = row_major(place.shape)
    first = sum(a * s for a, s in zip(write.source_start, strides, strict=True))
    last = first + sum((n - 1) * s for n, s in zip(write.source_length, strides, strict=True))
    return place.bytes_of(first)[0], place.bytes_of(last)[1]


def _decision(session: Session, view: ParameterView) -> tuple[Event, ...]:
    rows = list(session.rows("parameter.registered", ("built_as",), where=("parameter", view.name)))
    module = next((row[6] for row in rows if row[5] == view.rank and row[6]), view.module)
    kinds = (SkipDecided.kind, MethodSelected.kind)
    found = [[r[0] for r in session.rows(k, (), where=("module", module)) if r[5] == view.rank] for k in kinds]
    return tuple(session.event(positions[-1]) for positions in found if positions)
