"""The timeline: rows of events folded over ranks, built as far as they are looked at."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from inspectors.probe.events import Body, LoaderCalled
from sessions.event import Event
from sessions.filters import Filter
from sessions.folding import HIDDEN, LAYER, NO_ROW, Folded
from sessions.rowtext import label_of, name_of, shard_of
from sessions.session import Session

SEARCH_BLOCK = 512


@dataclass(frozen=True)
class Lane:
    """What one rank did in a row: the event's position, whether it still runs, whether it raised."""

    position: int
    is_open: bool
    is_failed: bool


@dataclass(frozen=True)
class Row:
    """One row. `position`, `name`, `label`, `shard`, `dur_ns` and `body` are those of the rank shown.

    `kind` is "layer" for a group of rows (no body; `count` rows and their summed time). `parent` is the number of
    the row around it, -1 for none. `lanes` has one entry a rank, None for a rank that is not concerned.
    """

    number: int
    kind: str
    depth: int
    parent: int
    position: int
    seq: int
    name: str
    label: str
    shard: str
    count: int
    dur_ns: int | None
    rank: int
    lanes: tuple[Lane | None, ...]
    is_group: bool
    body: Body | None


class Timeline:
    """Rows of a session, numbered from 0; numbers never change, rows are only added. Safe from several threads."""

    def __init__(self, session: Session, hidden: frozenset[str] = HIDDEN) -> None:
        self._session = session
        self._folded = Folded(session, hidden)
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._folded)

    @property
    def is_built(self) -> bool:
        """True when every event that the session has now is in a row."""
        return self._folded.done >= len(self._session)

    def build(self, rows: int | None = None, seconds: float | None = None) -> bool:
        """Build until there are `rows` rows, or for `seconds`, or to the end; True when all events are in."""
        end = None if seconds is None else time.monotonic() + seconds
        while (rows is None or len(self) < rows) and (end is None or time.monotonic() < end):
            with self._lock:
                if not self._folded.advance():
                    break
        return self.is_built

    def refresh(self) -> bool:
        """Take in ends of spans after `Session.refresh`; True when one ended or there are events to build."""
        with self._lock:
            return self._folded.refresh_open() or not self.is_built

    def page(self, start: int, stop: int, rank: int | None = None) -> list[Row]:
        """Rows start..stop-1, built as needed."""
        self.build(rows=stop)
        return self.rows(range(max(start, 0), min(stop, len(self))), rank)

    def row_of(self, position: int) -> int:
        """The number of the row in which an event is shown (its call's, for a hidden kind); -1 for none."""
        while self._folded.done <= position:
            with self._lock:
                if not self._folded.advance():
                    return NO_ROW
        return self._folded.row_of(position)

    def rows(self, numbers: Sequence[int], rank: int | None = None, now: int = -1) -> list[Row]:
        """The rows of these numbers, as `rank` saw them (None: the rank of the event `now`, else the first one)."""
        with self._lock:
            shown = {number: self._shown(number, rank, now) for number in numbers}
            wanted = [p for n, p in shown.items() if self._folded.kind_of[n] != LAYER]
            events = {event.position: event for event in self._session.events(wanted)}
            return [self._row(number, events.get(shown[number])) for number in numbers]

    def _shown(self, number: int, rank: int | None, now: int) -> int:
        folded = self._folded
        lanes = folded.lanes[number * folded.ranks : (number + 1) * folded.ranks]
        if rank is not None and 0 <= rank < folded.ranks and lanes[rank] >= 0:
            return int(lanes[rank])
        return now if rank is None and now >= 0 and now in lanes else int(folded.first[number])

    def _row(self, number: int, event: Event | None) -> Row:
        folded = self._folded
        lanes = self._lanes(number)
        parent, depth, count = folded.parent[number], folded.depth[number], folded.count[number]
        if folded.kind_of[number] == LAYER:
            name, first = folded.names[number], folded.first[number]
            short = ".".join(name.split(".")[-2:])
            return Row(number, "layer", depth, parent, first, first + 1, name, short, "", count,
                       folded.total_ns[number], -1, lanes, is_group=True, body=None)  # fmt: skip
        kind = folded.kinds[folded.kind_of[number]]
        if event is None:
            return Row(number, kind, depth, parent, folded.first[number], 0, "", f"{kind} (not readable)", "", count,
                       0, -1, lanes, is_group=False, body=None)  # fmt: skip
        layer = self._layer_of(number)
        label = label_of(kind, event.body, layer, count)
        return Row(number, kind, depth, parent, event.position, event.seq, name_of(event.body), label,
                   shard_of(event.body), count, event.dur_ns, event.rank, self._marked(lanes, event),
                   is_group=self._has_rows_inside(number), body=event.body)  # fmt: skip

    def _has_rows_inside(self, number: int) -> bool:
        return number + 1 < len(self) and self._folded.parent[number + 1] == number

    def _layer_of(self, number: int) -> str:
        at = self._folded.parent[number]
        while at >= 0:
            if self._folded.kind_of[at] == LAYER:
                return self._folded.names[at]
            at = self._folded.parent[at]
        return ""

    def _lanes(self, number: int) -> tuple[Lane | None, ...]:
        folded = self._folded
        begin = number * folded.ranks
        return tuple(
            Lane(position, position in folded.open_at, position in folded.failed) if position >= 0 else None
            for position in folded.lanes[begin : begin + folded.ranks]
        )

    def _marked(self, lanes: tuple[Lane | None, ...], event: Event) -> tuple[Lane | None, ...]:
        if not isinstance(event.body, LoaderCalled) or event.body.outcome != "raised":
            return lanes
        return tuple(
            Lane(lane.position, lane.is_open, is_failed=True) if lane and lane.position == event.position else lane
            for lane in lanes
        )

    def visible(
        self, folded: frozenset[int] = frozenset(), query: Filter | None = None, start: int = 0, stop: int | None = None
    ) -> list[int]:
        """The numbers of the rows to show: none inside a folded row; with a query those that match it.

        A row matches when the event of any of its ranks does; layer rows above a match are kept.
        """
        stop = len(self) if stop is None else min(stop, len(self))
        hidden: set[int] = set()
        for number in range(stop if folded else 0):
            parent = self._folded.parent[number]
            if parent >= 0 and (parent in folded or parent in hidden):
                hidden.add(number)
        numbers = [n for n in range(start, stop) if n not in hidden]
        return numbers if query is None else self._matching(numbers, query)

    def _matching(self, numbers: list[int], query: Filter) -> list[int]:
        found: set[int] = set()
        for at in range(0, len(numbers), SEARCH_BLOCK):
            for number in self._matches(numbers[at : at + SEARCH_BLOCK], query):
                row = number
                while row not in found:
                    found.add(row)
                    above = self._folded.parent[row]
                    if above < 0 or self._folded.kind_of[above] != LAYER:
                        break
                    row = above
        return [n for n in numbers if n in found]

    def _matches(self, numbers: Sequence[int], query: Filter) -> list[int]:
        folded = self._folded
        with self._lock:
            places: dict[int, int] = {}
            for number in numbers:
                kind = folded.kind_of[number]
                if kind == LAYER or (query.kinds is not None and folded.kinds[kind] not in query.kinds):
                    continue
                begin = number * folded.ranks
                places[folded.first[number]] = number
                if query.is_by_rank:
                    places.update({p: number for p in folded.lanes[begin : begin + folded.ranks] if p >= 0})
            found = {places[e.position] for e in self._session.events(list(places)) if query.matches(e)}
        return sorted(found)

    def search(self, query: Filter, row: int, backwards: bool = False) -> int:
        """The next row after (or before) `row` that matches, -1 when there is none; builds as far as needed."""
        if backwards:
            for stop in range(row, 0, -SEARCH_BLOCK):
                found = self._matches(range(max(stop - SEARCH_BLOCK, 0), stop), query)
                if found:
                    return found[-1]
            return NO_ROW
        start = row + 1
        while start < len(self) or not self.is_built:
            self.build(rows=start + SEARCH_BLOCK)
            found = self._matches(range(start, min(start + SEARCH_BLOCK, len(self))), query)
            if found:
                return found[0]
            start = min(start + SEARCH_BLOCK, len(self))
        return NO_ROW
