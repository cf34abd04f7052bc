"""Two sessions laid side by side: which events are alike, and what differs, from the first difference on."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from sessions.differing import NONE, Difference, Found, Sort
from sessions.event import Event
from sessions.legitimate import KEYS, LEVELS, comparable
from sessions.sequence import Lane, LaneName, Terms, folders_of, lanes_of, paired, rows_of, threaded_kinds
from sessions.session import Session
from sessions.stream import Stream

INSIDE, IS_OPEN = "inside", "is_open"


@dataclass(frozen=True)
class FieldDifference:
    """One fact of both sides."""

    name: str
    first: object
    second: object


@dataclass(frozen=True)
class Alignment:
    """What two sessions have in common. `differences` are in the order of the first session.

    `alike` counts pairs of events that say the same; `beyond` events after the end of a side whose process was killed;
    `left_out` events by kind that were not compared (another level, unknown to one recorder, ignored).
    `context` are versions and settings that differ, `outcome` how the hosts ended where that differs.
    """

    first: Session
    second: Session
    level: str
    alike: int
    beyond: int
    differences: tuple[Difference, ...]
    left_out: Mapping[str, int]
    context: tuple[FieldDifference, ...]
    outcome: FieldDifference | None
    pairs: Mapping[str, array[int]] = field(repr=False)

    @property
    def is_alike(self) -> bool:
        """True when no event differs and the hosts ended alike."""
        return not self.differences and self.outcome is None

    def counts(self) -> dict[str, dict[Sort, int]]:
        """How many events differ, by kind and sort, the most frequent kind first."""
        found: dict[str, Counter[Sort]] = defaultdict(Counter)
        for one in self.differences:
            found[one.kind][one.sort] += 1
        return {kind: dict(found[kind]) for kind in sorted(found, key=lambda kind: -found[kind].total())}

    def second_of(self, position: int) -> int:
        """The position in the second session of an event of the first, -1 for none."""
        return _at(self.pairs["first"], position)

    def first_of(self, position: int) -> int:
        """The position in the first session of an event of the second, -1 for none."""
        return _at(self.pairs["second"], position)

    def fields(self, difference: Difference) -> tuple[FieldDifference, ...]:
        """The facts in which both sides of a difference differ; none where one side has no such event."""
        if difference.first < 0 or difference.second < 0:
            return ()
        sides = self.first.event(difference.first), self.second.event(difference.second)
        told = [_told(session, event) for session, event in zip((self.first, self.second), sides, strict=True)]
        names = [*told[0], *(name for name in told[1] if name not in told[0])]
        terms = Terms.of(self.first, self.second, self.level)
        kept = {*terms.fields.get(difference.kind, ()), INSIDE, IS_OPEN}
        return tuple(
            FieldDifference(name, told[0].get(name), told[1].get(name))
            for name in names
            if name in kept and self._same(difference.kind, name, told) is False
        )

    def _same(self, kind: str, name: str, told: Sequence[Mapping[str, object]]) -> bool:
        sides = zip((self.first, self.second), told, strict=True)
        first, second = (comparable(kind, name, facts.get(name), folders_of(session)) for session, facts in sides)
        return first == second


def align(first: Session, second: Session, level: str | None = None) -> Alignment:
    """Lay two sessions side by side, at `level` or the lesser of theirs."""
    level = level or lesser(first, second)
    terms = Terms.of(first, second, level)
    pairs = {"first": array("i", [NONE]) * len(first), "second": array("i", [NONE]) * len(second)}
    numbered = list(enumerate(paired(first, second)))
    sides = [
        _Side(first, {n: stream for n, (stream, _) in numbered if stream is not None}, terms),
        _Side(second, {n: stream for n, (_, stream) in numbered if stream is not None}, terms),
    ]
    found = Found(list(terms.numbers), pairs)
    lanes = [side.lanes(_threaded(sides)) for side in sides]
    for name in sorted({*lanes[0], *lanes[1]}):
        found.compare(name, *(side.lane(name, held) for side, held in zip(sides, lanes, strict=True)))
    compared = set(terms.fields)
    left_out: Counter[str] = Counter()
    for session in (first, second):
        left_out.update({kind: n for kind, n in session.counts().items() if kind not in compared})
    return Alignment(
        first, second, level, found.alike, found.beyond, _ordered(found.differences, pairs["second"]),
        dict(left_out), _context(first, second), _outcome(first, second), pairs,
    )  # fmt: skip


def lesser(first: Session, second: Session) -> str:
    """The level that both sessions hold."""
    levels = [LEVELS.index(one.manifest.level) for one in (first, second) if one.manifest.level in LEVELS]
    return LEVELS[min(levels)] if levels else LEVELS[0]


def _ordered(found: Sequence[Difference], firsts: array[int]) -> tuple[Difference, ...]:
    """In the order of the first session; what it lacks comes after all that the second session had before."""
    reached = list(accumulate(firsts, max))
    return tuple(
        sorted(
            found,
            key=lambda one: (one.first, 0, one.second) if one.first >= 0 else (reached[one.second], 1, one.second),
        )
    )


class _Side:
    """One session of the two: its processes by their number, and their events as rows."""

    def __init__(self, session: Session, streams: Mapping[int, Stream], terms: Terms) -> None:
        self._session, self._streams = session, streams
        self.rows = {process: rows_of(session, stream, terms) for process, stream in streams.items()}

    def lanes(self, threaded: Mapping[int, Mapping[int, frozenset[str]]]) -> dict[LaneName, Lane]:
        """All lanes of all processes."""
        out: dict[LaneName, Lane] = {}
        for process, rows in self.rows.items():
            out.update(lanes_of(self._session, process, self._streams[process], rows, threaded.get(process, {})))
        return out

    def lane(self, name: LaneName, lanes: Mapping[LaneName, Lane]) -> Lane:
        """The lane, or an empty one: a process that was killed before its first commit has left no stream."""
        if name in lanes:
            return lanes[name]
        stream = self._streams.get(name.process)
        return Lane(is_cut=not (stream.is_closed if stream is not None else self._session.is_complete))


def _threaded(sides: Sequence[_Side]) -> dict[int, dict[int, frozenset[str]]]:
    """What came from other threads on either side has no order on both; by process and rank."""
    out: dict[int, dict[int, frozenset[str]]] = defaultdict(dict)
    for side in sides:
        for process, rows in side.rows.items():
            for rank, kinds in threaded_kinds(rows).items():
                out[process][rank] = out[process].get(rank, frozenset()) | kinds
    return out


def _told(session: Session, event: Event) -> dict[str, object]:
    parent = session.parent(event)
    inside = parent.kind if parent is not None else ""
    return {**vars(event.body), INSIDE: inside, IS_OPEN: event.is_open}


def identity(event: Event) -> str:
    """What an event is about, in a few words: the values of its key."""
    values = [getattr(event.body, name, "") for name in KEYS.get(event.kind, ())]
    return " ".join(dict.fromkeys(str(value) for value in values if value not in ("", -1)))


def _at(places: array[int], position: int) -> int:
    return places[position] if 0 <= position < len(places) else NONE


_SETTINGS = ("engine", "engine_version", "device", "tp", "level", "model", "scenario")


def _context(first: Session, second: Session) -> tuple[FieldDifference, ...]:
    """Versions and settings that are not the same, in the order in which they matter."""
    told = [{**{name: getattr(one.manifest, name) for name in _SETTINGS}, **_versions(one)} for one in (first, second)]
    names = [*told[0], *(name for name in told[1] if name not in told[0])]
    sides = [FieldDifference(name, told[0].get(name, ""), told[1].get(name, "")) for name in names]
    return tuple(one for one in sides if one.first != one.second and "" not in (one.first, one.second))


def _versions(session: Session) -> dict[str, object]:
    pythons = {str(row[6]) for row in session.rows("process.started", ("python",))}
    engines = {f"{row[6]} {row[7] or ''}".strip() for row in session.rows("engine.found", ("engine", "version"))}
    said = {version.partition(" ")[0]: version.partition(" ")[2] for version in session.manifest.versions}
    return {"python": ", ".join(sorted(pythons)), "engines found": ", ".join(sorted(engines)), **said}


def _outcome(first: Session, second: Session) -> FieldDifference | None:
    """How both hosts ended; a recording that nobody saw the end of, or that was interrupted, says nothing of it."""
    told = []
    for session in (first, second):
        outcome = session.manifest.outcome
        if outcome is None or outcome.state in {"running", "interrupted"}:
            return None
        code = f" with exit code {outcome.exit_code}" if outcome.exit_code else ""
        told.append(f"{outcome.state}{code}{f' by {outcome.signal}' if outcome.signal else ''}")
    return FieldDifference("outcome", *told) if told[0] != told[1] else None
