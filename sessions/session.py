"""A session folder as one sequence of events, live, finished or crashed; it is only ever read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from sessions.errors import SessionError
from sessions.event import Event
from sessions.hostlog import HostLog, LogLine
from sessions.manifest import FILE_NAME, Manifest
from sessions.order import Order
from sessions.stream import Stream

PAGE = 2048
MAX_STREAMS = 65_535

Kept = TypeVar("Kept")
Row = tuple[Any, ...]


class Session:
    """Events at positions 0..len-1, ordered by time. Use `Session.open`; safe to read from several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        self._views_lock = threading.RLock()  # a long view must not keep pages waiting
        self._streams: list[Stream] = []
        self._failed: dict[Path, str] = {}
        self._order = Order()
        self._kept: dict[str, tuple[int, object]] = {}
        self.generation = 0
        self.manifest = _manifest_of(folder)
        self.log = HostLog(folder)
        self._find_streams()

    @classmethod
    def open(cls, path: Path | str) -> Session:
        """Open a session folder (or its session.json). SessionError when it is none, or of a newer schema."""
        folder = Path(path)
        if folder.name == FILE_NAME:
            folder = folder.parent
        if not folder.is_dir():
            raise SessionError(f"{folder}: no such session folder", "Give the folder that a trace or demo wrote.")
        if not (folder / FILE_NAME).exists() and not (folder / "streams").is_dir():
            raise SessionError(
                f"{folder}: not a session: neither {FILE_NAME} nor streams/ is in it",
                "Give the folder that a trace or demo wrote; it holds session.json.",
            )
        session = cls(folder)
        if session._failed and not session._streams:
            what = next(iter(session._failed.values()))
            session.close()
            raise SessionError(f"{folder}: no stream can be read: {what}", "Record the load again.")
        return session

    def _find_streams(self) -> bool:
        known = {stream.path for stream in self._streams}
        # a file of no bytes is a stream whose writer has made, or died making, its first commit
        paths = [path for path in sorted((self.folder / "streams").glob("*.sqlite")) if path.stat().st_size]
        fresh = [path for path in paths if path not in known]
        found: list[Stream] = []
        for path in fresh[: MAX_STREAMS - len(self._streams)]:
            stream = self._try(path)
            found += [] if stream is None else [stream]
        for stream in sorted(found, key=lambda s: (s.opened_ns, s.path)):
            stream.number = len(self._streams)
            self._streams.append(stream)
        self._order.update(self._streams)
        return bool(found)

    def _try(self, path: Path) -> Stream | None:
        try:
            stream = Stream(path)
        except SessionError as error:
            if "schema" in error.what:
                raise
            self._failed[path] = error.what
            return None
        self._failed.pop(path, None)
        return stream

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The readable streams, the first process first."""
        return tuple(self._streams)

    @property
    def damage(self) -> tuple[str, ...]:
        """What could not be read, one sentence each; empty for a whole session."""
        texts = [*self._failed.values(), *(s.damage for s in self._streams if s.damage)]
        lost = sum(s.unreadable for s in self._streams)
        return (*texts, *([f"{lost} values could not be read"] if lost else []))

    @property
    def is_complete(self) -> bool:
        """True when every stream was ended by its writer and all of it can be read."""
        return bool(self._streams) and not self.damage and all(s.is_closed for s in self._streams)

    @property
    def unknown_kinds(self) -> dict[str, int]:
        """Kinds that this version does not know, with their counts."""
        out: dict[str, int] = {}
        for stream in self._streams:
            for kind, n in stream.unknown_kinds.items():
                out[kind] = out.get(kind, 0) + n
        return out

    def refresh(self) -> bool:
        """Take in what was recorded since the last call; True when there are new rows, ends or log lines."""
        with self._lock:
            changed = [stream.refresh() for stream in self._streams]
            is_new = self._find_streams()
            has_log = self.log.refresh()
            manifest = _manifest_of(self.folder)
            is_told = manifest != self.manifest
            self.manifest = manifest
            if any(changed) or is_new or is_told:
                self.generation += 1
            return any(changed) or is_new or has_log or is_told

    def close(self) -> None:
        """Close all files; reading afterwards raises SessionError."""
        for stream in self._streams:
            stream.close()

    @property
    def path(self) -> Path:
        """The session folder."""
        return self.folder

    def __len__(self) -> int:
        return len(self._order)

    def page(self, start: int, stop: int) -> list[Event]:
        """The events at positions start..stop-1 (cut to what there is), by ranges of seq."""
        start, stop = max(start, 0), min(stop, len(self))
        runs = self._located(start, stop)
        out: list[Event] = []
        fetched: dict[tuple[int, int], Event] = {}
        if self._order.is_merged:
            fetched = self._fetch(runs)
        for number, first, last in runs:
            if not fetched:
                out += self._streams[number].page(first, last)
                continue
            found = (fetched.get((number, seq)) for seq in range(first, last + 1))
            out += [event for event in found if event is not None]
        if self._order.is_merged:
            out = [replace(e, position=self._order.position(e.stream, e.seq)) for e in out]
        return out

    def _fetch(self, runs: list[tuple[int, int, int]]) -> dict[tuple[int, int], Event]:
        """One query a stream instead of one a run: processes that take turns make very short runs."""
        bounds: dict[int, list[int]] = {}
        for number, first, last in runs:
            known = bounds.setdefault(number, [first, last])
            known[0], known[1] = min(known[0], first), max(known[1], last)
        return {
            (number, event.seq): event
            for number, (first, last) in bounds.items()
            for event in self._streams[number].page(first, last)
        }

    def events(self, positions: Sequence[int]) -> list[Event]:
        """The events at these positions, in order of position; positions that do not exist are left out."""
        wanted = sorted({p for p in positions if 0 <= p < len(self)})
        if not self._order.is_merged:
            return self._streams[0].pick([p + 1 for p in wanted]) if wanted else []
        places: dict[int, dict[int, int]] = {}
        for position in wanted:
            for number, seq, _ in self._located(position, position + 1):
                places.setdefault(number, {})[seq] = position
        found = [
            replace(event, position=by_seq[event.seq])
            for number, by_seq in places.items()
            for event in self._streams[number].pick(list(by_seq))
        ]
        return sorted(found, key=lambda event: event.position)

    def _located(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        with self._lock:
            return self._order.locate(start, stop)

    def event(self, position: int) -> Event:
        """The event at a position. SessionError when there is none."""
        found = self.page(position, position + 1) if position >= 0 else []
        if not found:
            raise SessionError(f"{self.folder}: no event {position}", f"Positions go from 0 to {len(self) - 1}.")
        return found[0]

    def find(self, ref: str) -> Event:
        """The event of a reference such as "#131" or "#1:20" (`Event.ref`). SessionError when there is none."""
        number, _, seq = ref.strip().removeprefix("#").rpartition(":")
        if not seq.isdigit() or (number and not number.isdigit()) or len(seq) > 18:
            raise SessionError(f"{ref!r} is no event reference", "Write #SEQ, or #STREAM:SEQ.")
        position = self.position(int(number or 0), int(seq))
        if position < 0:
            raise SessionError(f"{self.folder}: no event {ref}", "See the timeline for the events there are.")
        return self.event(position)

    def position(self, stream: int, seq: int) -> int:
        """The position of (stream, seq), -1 for none."""
        with self._lock:
            return self._order.position(stream, seq)

    def seqs_before(self, position: int) -> list[int]:
        """For each stream the greatest seq whose position is below `position`."""
        with self._lock:
            return self._order.seqs_before(position)

    def of_kinds(self, *kinds: str, start: int = 0, stop: int | None = None) -> Iterator[Event]:
        """Events of these kinds in order, from position `start` to before `stop`; read page by page."""
        wanted = frozenset(kinds)
        stop = len(self) if stop is None else min(stop, len(self))
        for positions in self._pages_with(wanted, max(start, 0), stop):
            first, last = positions[0], positions[-1]
            chosen = set(positions)
            yield from (e for e in self.page(first, last + 1) if e.position in chosen)

    def _pages_with(self, kinds: frozenset[str], start: int, stop: int) -> Iterator[list[int]]:
        positions = sorted(row[0] for kind in kinds for row in self.rows(kind, (), start, stop))
        page: list[int] = []
        for position in positions:
            if page and position - page[0] >= PAGE:
                yield page
                page = []
            page.append(position)
        if page:
            yield page

    def rows(
        self,
        kind: str,
        names: tuple[str, ...],
        start: int = 0,
        stop: int | None = None,
        where: tuple[str, str] | None = None,
    ) -> Iterator[Row]:
        """Plain rows of one kind: (position, stream, t_ns, dur_ns, parent, rank, *fields), cheaper than events.

        Fields that a stream lacks come as None. In order inside each stream, stream after stream. With `where` only
        those whose text field of that name is the text given: the file finds them, the others are not read.
        """
        stop = len(self) if stop is None else min(stop, len(self))
        firsts, lasts = self.seqs_before(start), self.seqs_before(stop)
        for stream, first, last in zip(self.streams, firsts, lasts, strict=True):
            found = stream.columns(kind, names, first + 1, last, where)
            if self._order.is_merged:
                for seq, *facts in found:
                    yield (self.position(stream.number, seq), stream.number, *facts)
            else:
                for seq, *facts in found:
                    yield (seq - 1, stream.number, *facts)

    def children(self, event: Event) -> list[Event]:
        """The events directly inside a span, in order."""
        stream = self._streams[event.stream]
        out: list[Event] = []
        seq, end = event.seq + 1, None if event.dur_ns is None else event.t_ns + event.dur_ns
        while seq <= stream.count:
            page = stream.page(seq, seq + PAGE // 8)
            out += [e for e in page if e.parent == event.seq]
            if not page or (end is not None and page[-1].t_ns > end):
                break
            seq = page[-1].seq + 1
        if self._order.is_merged:
            out = [replace(e, position=self.position(e.stream, e.seq)) for e in out]
        return out

    def parent(self, event: Event) -> Event | None:
        """The span around an event, None outside any."""
        position = self.position(event.stream, event.parent) if event.parent else -1
        return self.event(position) if position >= 0 else None

    def count(self, kind: str) -> int:
        """How many events of a kind there are."""
        return self.counts().get(kind, 0)

    def counts(self) -> dict[str, int]:
        """How many events of each kind there are."""
        out: dict[str, int] = {}
        for stream in self._streams:
            for kind, n in stream.counts().items():
                out[kind] = out.get(kind, 0) + n
        return out

    def kinds(self) -> tuple[str, ...]:
        """The kinds that occur, sorted."""
        return tuple(sorted(self.counts()))

    @property
    def log_count(self) -> int:
        """How many lines the host has written."""
        return len(self.log)

    def log_lines(self, start: int, stop: int) -> list[LogLine]:
        """Lines start..stop-1 of the host's output."""
        return self.log.lines(start, stop)

    def log_line_at(self, t_ns: int) -> int:
        """The number of the last line that had come at `t_ns`, -1 for none."""
        return self.log.line_at(t_ns)

    def kept(self, name: str, make: Callable[[], Kept]) -> Kept:
        """A view computed once for each state of the session: views of views share their work through this."""
        with self._views_lock:
            generation = self.generation
            found = self._kept.get(name)
            if found is None or found[0] != generation:
                found = self._kept[name] = (generation, make())
            return found[1]  # type: ignore[return-value]


def _manifest_of(folder: Path) -> Manifest:
    if (folder / FILE_NAME).exists():
        return Manifest.read(folder)
    return Manifest(name=folder.name)
