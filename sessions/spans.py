"""Who was at work at each moment: spans of a session by process and thread, and their time without what lies inside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

from sessions.session import Session
from sessions.stream import Stream

STAGE_OF = {
    "checkpoint.open": "checkpoint.open",
    "weights.created": "weights.create",
    "weights.mapped": "weight.map",
    "tensor.read": "tensor.read",
    "loader.called": "weight.load",
    "weights.processed": "weights.process",
    "model.ready": "model.ready",
    "forward.ran": "forward.run",
    "kernel.launched": "kernel.launch",
}
"""The stage whose time a span is; in the order in which a load goes through them."""

_FIELDS = {
    "weights.created": ("module",),
    "weights.mapped": ("model_class",),
    "tensor.read": ("checkpoint_name", "size_bytes"),
    "loader.called": ("parameter", "checkpoint_name", "tensor_bytes", "shard_id", "expert_id"),
    "weights.processed": ("module",),
    "forward.ran": ("phase", "tokens"),
    "kernel.launched": ("name", "module"),
}
_UNSPANNED = ("checkpoint.open", "model.ready")
"""Stages without an event that lasts; the timing inspector's stand for them."""

_AROUND = frozenset({"weights.mapped", "forward.ran"})


@dataclass(frozen=True, eq=False, slots=True)
class Span:
    """One span. `lane` is the thread in which it ran, as far as nesting and ranks tell; `parent` None outside any.

    `facts` are those of its kind: parameter and checkpoint name of a loader call, module of a post-processing, ...
    """

    stream: int
    seq: int
    kind: str
    start_ns: int
    end_ns: int
    rank: int
    parent: Span | None
    facts: tuple[Any, ...]

    @property
    def stage(self) -> str:
        """The stage whose time it is."""
        return STAGE_OF[self.kind]

    @property
    def is_around(self) -> bool:
        """True for what holds others: in its own time a rank may as well be waiting for another one."""
        return self.kind in _AROUND

    @property
    def dur_ns(self) -> int:
        """From its start to its end, or to the stream's last event where it never ended."""
        return self.end_ns - self.start_ns


class Piece(NamedTuple):
    """A stretch of time in which `span` was the innermost one of its lane; `share` of it is counted for it."""

    start_ns: int
    end_ns: int
    span: Span
    share: float = 1.0

    @property
    def ns(self) -> float:
        """The time that is counted."""
        return (self.end_ns - self.start_ns) * self.share


@dataclass(frozen=True)
class Lane:
    """One thread of one process: its pieces in order of time, none overlapping another."""

    stream: int
    rank: int
    pieces: tuple[Piece, ...]


def spans(session: Session) -> tuple[Span, ...]:
    """Every span, stream after stream, in order of their starts; an open one reaches to its stream's last event."""
    return session.kept("spans", lambda: tuple(s for stream in session.streams for s in _spans_of(stream)))


def lanes(session: Session) -> tuple[Lane, ...]:
    """The threads of all processes."""
    return session.kept("lanes", lambda: _lanes(spans(session)))


def pieces(session: Session) -> tuple[Piece, ...]:
    """The time of each process, every moment counted once.

    Where several threads are inside spans at the same time, those that do work share the moment equally, and those that
    only hold others (a model's `load_weights`, a forward pass) get it when nobody works: ranks in lockstep wait there.
    """
    return session.kept("pieces", lambda: tuple(_shared(lanes(session))))


def last_moment(stream: Stream) -> int:
    """The last moment (ns) that a process is known to have been at work: what never ended reached up to here."""
    ends = stream.rows("SELECT max(t_ns + ifnull(dur_ns, 0)) FROM event")
    return ends[0][0] if ends and isinstance(ends[0][0], int) else 0


def _spans_of(stream: Stream) -> list[Span]:
    last_ns = last_moment(stream)
    rows: list[tuple[Any, ...]] = []
    for kind, names in _FIELDS.items():
        for seq, start, dur, parent, rank, *facts in stream.columns(kind, names, 1, stream.count):
            rows.append(
                (start, start + dur if dur is not None else max(start, last_ns), seq, kind, parent, rank, facts)
            )
    for seq, start, dur, parent, rank, stage in stream.columns("stage.timed", ("of_stage",), 1, stream.count):
        if stage in _UNSPANNED:
            rows.append((start, start + (dur or 0), seq, str(stage), parent, rank, ()))
    # by seq first: a parent is made before its children, also before one that was told when it was over
    by_seq: dict[int, Span] = {}
    for start, end, seq, kind, parent, rank, facts in sorted(rows, key=lambda row: row[2]):
        by_seq[seq] = Span(stream.number, seq, kind, start, end, rank, by_seq.get(parent), tuple(facts))
    return sorted(by_seq.values(), key=attrgetter("start_ns", "seq"))


def _lanes(found: tuple[Span, ...]) -> tuple[Lane, ...]:
    children: dict[int, list[Span]] = {}
    for span in found:
        if span.parent is not None:
            children.setdefault(id(span.parent), []).append(span)
    made: dict[tuple[int, int], list[list[Piece]]] = {}
    for root in (span for span in found if span.parent is None):
        threads = made.setdefault((root.stream, root.rank), [])
        free = next((one for one in threads if one[-1].end_ns <= root.start_ns), None)
        if free is None:
            free = []
            threads.append(free)
        free.extend(_inside(root, root.start_ns, root.end_ns, children))
        if not free:
            threads.remove(free)
    return tuple(Lane(stream, rank, tuple(thread)) for (stream, rank), threads in made.items() for thread in threads)


def _inside(span: Span, start: int, end: int, children: dict[int, list[Span]]) -> Iterator[Piece]:
    """The pieces of a span and of what lies inside it, cut to `start`..`end`."""
    at = start
    for child in children.get(id(span), ()):
        begins, ends = max(child.start_ns, at), min(child.end_ns, end)
        if ends <= begins:
            continue
        if begins > at:
            yield Piece(at, begins, span)
        yield from _inside(child, begins, ends, children)
        at = ends
    if at < end:
        yield Piece(at, end, span)


def _shared(found: tuple[Lane, ...]) -> Iterator[Piece]:
    for stream in sorted({lane.stream for lane in found}):
        own = [lane for lane in found if lane.stream == stream]
        yield from own[0].pieces if len(own) == 1 else _swept(own)


def _swept(found: list[Lane]) -> Iterator[Piece]:
    edges = sorted(
        edge
        for number, lane in enumerate(found)
        for place, piece in enumerate(lane.pieces)
        for edge in ((piece.start_ns, 1, number, place), (piece.end_ns, 0, number, place))
    )
    active: dict[int, Span] = {}
    last = 0
    for at, is_start, number, place in edges:
        if active and at > last:
            working = [span for span in active.values() if not span.is_around] or list(active.values())
            for span in working:
                yield Piece(last, at, span, 1 / len(working))
        last = at
        if is_start:
            active[number] = found[number].pieces[place].span
        elif active.get(number) is found[number].pieces[place].span:
            del active[number]


def waited_ns(session: Session, rank: int) -> dict[str, int]:
    """By stage, how long a rank did no work of its own while another rank of its process worked."""
    out: dict[str, int] = {}
    for lane in (lane for lane in lanes(session) if lane.rank == rank):
        others = [other for other in lanes(session) if other.stream == lane.stream and other is not lane]
        busy = _union(p for other in others for p in other.pieces if not p.span.is_around)
        for kind in _AROUND:
            idle = [(p.start_ns, p.end_ns) for p in lane.pieces if p.span.kind == kind]
            out[STAGE_OF[kind]] = out.get(STAGE_OF[kind], 0) + _overlap(idle, busy)
    return out


def _union(found: Iterator[Piece]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for start, end in sorted((piece.start_ns, piece.end_ns) for piece in found):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((start, end))
    return out


def _overlap(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> int:
    total = at = 0
    for start, end in left:
        while at < len(right) and right[at][1] <= start:
            at += 1
        place = at
        while place < len(right) and right[place][0] < end:
            total += min(end, right[place][1]) - max(start, right[place][0])
            place += 1
    return total
