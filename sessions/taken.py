"""From bytes of a checkpoint file to the elements of parameters that they filled."""

from __future__ import annotations

from dataclasses import dataclass

from inspectors.probe.events import TensorListed
from sessions.checkpoint import tensor
from sessions.coverage import Box
from sessions.ledger import Write
from sessions.maps import map_of
from sessions.parameters import ParameterView, parameter
from sessions.session import Session
from sessions.stored import Stored, stored


@dataclass(frozen=True)
class Taken:
    """Elements of a parameter that bytes went into, by one write; `boxes` is None where that is not known."""

    view: ParameterView
    write: Write
    boxes: tuple[Box, ...] | None


@dataclass(frozen=True)
class Bytes:
    """What a range of bytes of one tensor became: `first`..`last`-1 are its elements that have a bit in there."""

    tensor: Stored
    begin: int
    end: int
    first: int
    last: int
    taken: tuple[Taken, ...]

    @property
    def is_unused(self) -> bool:
        """True when no write is known to have taken any of it, nor may have."""
        return not self.taken


def files(session: Session) -> tuple[str, ...]:
    """The files that the headers are of."""
    return tuple(dict.fromkeys(row[6] for row in session.rows("tensor.listed", ("file",)) if row[6]))


def bytes_of(session: Session, file: str, begin: int, end: int) -> tuple[Bytes, ...]:
    """The tensors of a file with bytes in begin..end-1, in order, and the elements of parameters that these filled."""
    fields = ("checkpoint_name", "dtype", "shape", "file", "begin", "end")
    rows = session.rows("tensor.listed", fields, where=("file", file))
    listed = {row[6]: TensorListed(*row[6:]) for row in rows if row[10] < end and row[11] > begin}
    return tuple(_bytes(session, name, one, begin, end) for name, one in listed.items())


def _bytes(session: Session, name: str, listed: TensorListed, begin: int, end: int) -> Bytes:
    place = tensor(session, name) or stored(listed)
    first, last = place.elements_in(begin, end)
    called = [row[6] for row in session.rows("loader.called", ("parameter",), where=("checkpoint_name", name))]
    written = [row[6] for row in session.rows("weight.written", ("parameter",), where=("checkpoint_name", name))]
    taken = [
        one
        for parameter_name in dict.fromkeys((*called, *written))
        for view in parameter(session, parameter_name)
        for write in view.writes
        if write.checkpoint_name == name and (one := _taken(view, write, place, first, last)) is not None
    ]
    return Bytes(place, max(begin, place.begin), min(end, place.end), first, last, tuple(taken))


def _taken(view: ParameterView, write: Write, place: Stored, first: int, last: int) -> Taken | None:
    if not write.elements or write.source == "constant":
        return None
    at = map_of(write, place.shape) if view.is_placed(write) and not write.runs else None
    if at is None:
        return Taken(view, write, None)
    boxes = at.boxes_from(first, last)
    return Taken(view, write, tuple(boxes)) if boxes else None
