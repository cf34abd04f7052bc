"""One side of an alignment: a session's events as lanes of numbers, one lane for what must come in one order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

from sessions.legitimate import IGNORED_KINDS, KEYS, comparable, compared, is_at_level
from sessions.session import Session
from sessions.stream import Stream

Values = tuple[object, ...]


class LaneName(NamedTuple):
    """Which events stand in one order: those of one process and rank; `is_threaded`: of its other threads.

    `process` is the number of the pair of streams that `paired` gives.
    """

    process: int
    rank: int
    is_threaded: bool


@dataclass
class Lane:
    """Events in order: their positions, what they are (`keys`) and what they say (`facts`), as shared numbers.

    `is_cut`: the process was killed, so its last events may be missing and its last spans have no end.
    """

    rank: int = -1
    positions: list[int] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    facts: list[int] = field(default_factory=list)
    is_open: list[bool] = field(default_factory=list)
    is_cut: bool = False


class Numbers(dict[Values, int]):
    """A number for each tuple, the same for both sides."""

    def __missing__(self, value: Values) -> int:
        number = self[value] = len(self)
        return number


@dataclass(frozen=True)
class Terms:
    """What both sides agreed to compare: fields by kind (a kind that is missing here is left out) and the level."""

    fields: Mapping[str, tuple[str, ...]]
    level: str
    numbers: Numbers = field(default_factory=Numbers)

    @classmethod
    def of(cls, first: Session, second: Session, level: str) -> Terms:
        """Kinds that both recorders knew, at `level`, with the fields that both streams hold."""
        sides = [fields_of(one) for one in (first, second)]
        known = known_kinds(first) & known_kinds(second) | (sides[0].keys() & sides[1].keys())
        fields: dict[str, tuple[str, ...]] = {}
        for kind in (sides[0].keys() | sides[1].keys()) & known - IGNORED_KINDS.keys():
            if not is_at_level(kind, level):
                continue
            held = [side[kind] for side in sides if kind in side]
            fields[kind] = compared(kind, tuple(name for name in held[0] if all(name in one for one in held)))
        return cls(fields, level)


class Row(NamedTuple):
    """One event on its way into a lane."""

    seq: int
    t_ns: int
    dur_ns: int | None
    parent: int
    rank: int
    kind: str
    key: int
    facts: int


def fields_of(session: Session) -> dict[str, tuple[str, ...]]:
    """The fields of each kind that a session holds, as its streams declare them."""
    out: dict[str, tuple[str, ...]] = {}
    for stream in session.streams:
        for kind in stream.counts():
            declared = stream.fields(kind)
            out[kind] = tuple(name for name in out.get(kind, declared) if name in declared)
    return out


def folders_of(session: Session) -> dict[str, str]:
    """The folders that texts of a session may name, the longest first, each with the word that stands for it."""
    told = {str(session.folder): "SESSION", session.manifest.model: "CHECKPOINT"}
    return {folder: told[folder] for folder in sorted(filter(None, told), key=len, reverse=True)}


def paired(first: Session, second: Session) -> list[tuple[Stream | None, Stream | None]]:
    """The processes of both sides: those that speak of the same ranks, then of most of the same, in their order."""
    ranks = {stream.path: stream.ranks() for session in (first, second) for stream in session.streams}
    left, found = list(second.streams), {}
    for is_exact in (True, False):
        for stream in first.streams:
            mine = ranks[stream.path]
            like = [one for one in left if ranks[one.path] == mine or not is_exact]
            if stream.path not in found and like:
                found[stream.path] = max(like, key=lambda one: len(ranks[one.path] & mine))
                left.remove(found[stream.path])
    return [*((stream, found.get(stream.path)) for stream in first.streams), *((None, stream) for stream in left)]


def rows_of(session: Session, stream: Stream, terms: Terms) -> list[Row]:
    """The events of a stream that are compared, in order."""
    folders = folders_of(session)
    kind_at = {seq: kind for seq, kind, *_ in stream.envelopes(1, stream.count)}
    out: list[Row] = []
    for kind, names in terms.fields.items():
        key_fields = KEYS.get(kind, ())
        places = [names.index(name) for name in key_fields if name in names]
        for seq, t_ns, dur_ns, parent, rank, *values in stream.columns(kind, names, 1, stream.count):
            told = [comparable(kind, name, value, folders) for name, value in zip(names, values, strict=True)]
            key = terms.numbers[(kind, *(told[place] for place in places))]
            inside = kind_at.get(parent, "")
            out.append(Row(seq, t_ns, dur_ns, parent, rank, kind, key, terms.numbers[(key, inside, *told)]))
    return sorted(out, key=itemgetter(0))


def threaded_kinds(rows: Iterable[Row]) -> dict[int, frozenset[str]]:
    """By rank the kinds of spans that began, outside of any span, while another one of the rank was open.

    Only another thread can do that, and then their order is an accident.
    """
    ends: dict[int, float] = {}
    found: dict[int, set[str]] = defaultdict(set)
    for row in sorted((row for row in rows if row.parent == 0 and row.dur_ns != 0), key=lambda row: row.t_ns):
        if row.t_ns < ends.get(row.rank, 0):
            found[row.rank].add(row.kind)
        else:
            ends[row.rank] = float("inf") if row.dur_ns is None else row.t_ns + row.dur_ns
    return {rank: frozenset(kinds) for rank, kinds in found.items()}


def lanes_of(
    session: Session,
    process: int,
    stream: Stream,
    rows: Sequence[Row],
    threaded: Mapping[int, frozenset[str]],
) -> dict[LaneName, Lane]:
    """The lanes of one process. What other threads did stands in the order of its keys, for want of any other."""
    lanes: dict[LaneName, list[tuple[tuple[int, int, int], Row]]] = defaultdict(list)
    above: dict[int, tuple[LaneName, tuple[int, int]]] = {}
    for row in rows:
        inherited = above.get(row.parent)
        if inherited is not None and inherited[0].rank == row.rank:
            name, first = inherited
        else:
            is_threaded = row.parent == 0 and row.kind in threaded.get(row.rank, ())
            name, first = LaneName(process, row.rank, is_threaded), ((row.key, row.facts) if is_threaded else (0, 0))
        above[row.seq] = name, first
        lanes[name].append(((*first, row.seq), row))
    return {name: _lane(session, stream, found) for name, found in lanes.items()}


def _lane(session: Session, stream: Stream, found: list[tuple[tuple[int, int, int], Row]]) -> Lane:
    lane = Lane(is_cut=not stream.is_closed, rank=found[0][1].rank)
    for _, row in sorted(found, key=itemgetter(0)):
        lane.positions.append(session.position(stream.number, row.seq))
        lane.kinds.append(row.kind)
        lane.keys.append(row.key)
        lane.facts.append(row.facts)
        lane.is_open.append(row.dur_ns is None)
    return lane


def known_kinds(session: Session) -> frozenset[str]:
    """The kinds that the recorder of a session knew; of an old session those that occur in it."""
    return frozenset(session.manifest.kinds) or frozenset(session.kinds())
