"""One stream of a session: a SQLite file read page by page, by its writer's side or after its writer's death."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inspectors.probe.events import KINDS, SCHEMA_VERSION, Body
from sessions import opening
from sessions.errors import SessionError
from sessions.event import NOTHING, Event, UnknownBody
from sessions.layout import Layout, layouts, quoted
from sessions.texts import Texts

BATCH = 4096
ENVELOPE = "e.seq, e.t_ns, e.dur_ns, e.parent, e.rank"

Raw = tuple[Any, ...]


class Stream:
    """One process's events, seq 1..`count`. Safe to use from several threads; never writes beside the file.

    `damage` is the first thing that could not be read ("" if all could), `is_closed` whether the writer ended it.
    """

    def __init__(self, path: Path, number: int = 0) -> None:
        self.path, self.number = path, number
        self._lock = threading.RLock()
        self.damage = ""
        self.count = 0
        self._opened: opening.Opened | None = None
        self._reopen()

    def _reopen(self) -> None:
        with self._lock:
            if self._opened is not None:
                self._opened.close()
            self._opened = opening.connect(self.path)
            self._version = -1
            self._texts = Texts(self.rows)
            self._names: dict[int, str] = {}
            self._layouts: dict[str, Layout] = {}
            self._read_meta()
            self._catch_up()

    def _read_meta(self) -> None:
        try:
            self.meta = self._stored_meta()
        except sqlite3.DatabaseError as error:
            if _is_young(self._db()):
                self.meta = {}
                return
            raise SessionError(
                f"{self.path}: not a readable stream: {error}",
                "The file is damaged from its start; the other streams of the session stay readable.",
            ) from error
        schema = self.meta.get("schema", str(SCHEMA_VERSION))
        if not schema.isdigit() or int(schema) > SCHEMA_VERSION:
            raise SessionError(
                f"{self.path}: stream of schema {schema}, this version reads up to {SCHEMA_VERSION}",
                "Open it with the loadscope that recorded it, or upgrade this one.",
            )

    def _stored_meta(self) -> dict[str, str]:
        query = "SELECT key, value FROM meta"
        try:
            return {str(k): str(v) for k, v in self._db().execute(query)}
        except sqlite3.DatabaseError as error:
            if _is_young(self._db()):
                raise
            # SQLite refuses a file shorter than its header says, except to who asks to mend it
            self._db().execute("PRAGMA writable_schema=ON")
            meta = {str(k): str(v) for k, v in self._db().execute(query)}
            self._note(error)
            return meta

    def _db(self) -> sqlite3.Connection:
        if self._opened is None:
            raise SessionError(f"{self.path}: the session is closed", "Open it again with Session.open.")
        return self._opened.db

    @property
    def is_closed(self) -> bool:
        """True when the writer ended the stream in order."""
        return self.meta.get("is_closed") == "1"

    @property
    def opened_ns(self) -> int:
        """The host's monotonic clock when the stream was opened."""
        text = self.meta.get("opened_monotonic_ns", "0")
        return int(text) if text.isdigit() else 0

    @property
    def dropped(self) -> int:
        """Events the writer counted but did not keep."""
        text = self.meta.get("dropped", "0")
        return int(text) if text.isdigit() else 0

    @property
    def unreadable(self) -> int:
        """Texts and values that were missing or malformed so far."""
        return self._texts.unreadable

    @property
    def unknown_kinds(self) -> dict[str, int]:
        """Kinds this version does not know, with their counts."""
        return {kind: n for kind, n in self.counts().items() if kind not in KINDS}

    def refresh(self) -> bool:
        """Look for new rows and ends; True when the file changed since the last time."""
        with self._lock:
            opened = self._opened
            if opened is None:
                return False
            if not opened.is_shared:
                if opening.stamp(self.path) == opened.stamp:
                    return False
                self._reopen()
                return True
            version = self._data_version()
            if version == self._version and self.meta:
                return False
            self._read_meta()
            self._catch_up()
            return True

    def _data_version(self) -> int:
        rows = self.rows("PRAGMA data_version")
        return int(str(rows[0][0])) if rows else -1

    def _catch_up(self) -> None:
        if not self.meta:
            return
        self._version = self._data_version()
        try:
            row = self._db().execute("SELECT max(seq) FROM event").fetchone()
            self.count = int(row[0] or 0)
        except sqlite3.DatabaseError as error:
            self._note(error)
            self.count = self._salvaged_count()
        self._layouts = layouts(self.rows("SELECT kind, name, storage, position FROM field"))

    def _salvaged_count(self) -> int:
        rows = [row[0] for row in self.rows("SELECT seq, t_ns, kind FROM event ORDER BY seq") if type(row[1]) is int]
        return max((seq for seq in rows if type(seq) is int), default=0)

    def _note(self, error: sqlite3.DatabaseError) -> None:
        self.damage = self.damage or f"{self.path.name}: {error}"

    def rows(self, query: str, arguments: Raw = ()) -> list[Raw]:
        """The rows of a query; of a damaged file those before the damage, which `damage` then names."""
        found: list[Raw] = []
        with self._lock:
            try:
                for row in self._db().execute(query, arguments):
                    found.append(row)  # noqa: PERF402 - what was read before an error counts
            except sqlite3.DatabaseError as error:
                self._note(error)
        return found

    def name(self, number: object) -> str:
        """The text of an interned number."""
        return self._texts.text(number)

    def counts(self) -> dict[str, int]:
        """How many events of each kind were committed."""
        if self.damage:
            rows = self.rows("SELECT kind, count(*) FROM event GROUP BY kind")
        else:
            rows = self.rows("SELECT kind, sum(count) FROM rollup GROUP BY kind")
        return {self.name(kind): int(str(n)) for kind, n in rows}

    def rollup(self) -> list[tuple[str, int, int, int]]:
        """(kind, count, first t_ns, last t_ns) for each commit and kind, in commit order."""
        rows = self.rows("SELECT kind, count, first_t_ns, last_t_ns FROM rollup ORDER BY rowid")
        return [(self.name(k), int(str(n)), int(str(a)), int(str(b))) for k, n, a, b in rows]

    def bounds(self, kind: str) -> tuple[int, int, int] | None:
        """First start, last end known (ns) and number of the events of a kind, from the rollup; None without any."""
        found = [row for row in self.rollup() if row[0] == kind]
        if not found:
            return None
        last = max(row[3] for row in found)
        layout = self._layouts.get(kind)
        if layout is not None:
            rows = self.rows(
                f"SELECT max(e.t_ns + ifnull(e.dur_ns, 0)) FROM event e WHERE e.seq IN "
                f"(SELECT seq FROM {layout.table} ORDER BY seq DESC LIMIT 64)"
            )
            last = max(last, _whole(rows[0][0]) if rows else 0)
        return min(row[2] for row in found), last, sum(row[1] for row in found)

    def fields(self, kind: str) -> tuple[str, ...]:
        """The fields of a kind as this stream declares them; none for a kind that it does not hold."""
        layout = self._layouts.get(kind)
        return tuple(name for name, _ in layout.columns) if layout is not None else ()

    def ranks(self) -> frozenset[int]:
        """The ranks that its events speak of, -1 for none."""
        return frozenset(_whole(row[0]) for row in self.rows("SELECT DISTINCT rank FROM event"))

    def durations(self, seqs: list[int]) -> dict[int, int | None]:
        """The durations in ns of these events, None for spans still open."""
        out: dict[int, int | None] = {}
        for start in range(0, len(seqs), BATCH // 8):
            batch = seqs[start : start + BATCH // 8]
            marks = ",".join("?" * len(batch))
            for seq, dur in self.rows(f"SELECT seq, dur_ns FROM event WHERE seq IN ({marks})", tuple(batch)):
                out[int(str(seq))] = dur if isinstance(dur, int) else None
        return out

    def page(self, first: int, last: int) -> list[Event]:
        """Events with seq `first`..`last` (both in), in seq order; `position` is seq-1 (the session corrects it)."""
        return self._events("BETWEEN ? AND ?", (first, last))

    def pick(self, seqs: list[int]) -> list[Event]:
        """The events with these seqs, in seq order."""
        out: list[Event] = []
        wanted = sorted(set(seqs))
        for start in range(0, len(wanted), BATCH // 8):
            batch = tuple(wanted[start : start + BATCH // 8])
            out += self._events(f"IN ({','.join('?' * len(batch))})", batch)
        return out

    def _events(self, which: str, arguments: Raw) -> list[Event]:
        rows = self.rows(
            f"SELECT {ENVELOPE}, e.kind, e.stage FROM event e WHERE e.seq {which} ORDER BY e.seq", arguments
        )
        rows = [row for row in rows if self._is_sound(row)]
        self._texts.need([n for row in rows for n in row[5:7]])
        bodies: dict[object, Raw] = {}
        for number in {row[5] for row in rows}:
            bodies.update(self._raw_bodies(self.name(number), which, arguments))
        return [self._event(row, bodies.get(row[0])) for row in rows]

    def _is_sound(self, row: Raw) -> bool:
        """False for what SQLite makes of a page that is cut in two."""
        is_told = all(type(row[place]) is int for place in (0, 1, 5)) and 0 < row[0] <= self.count
        if is_told and (not self.damage or self.name(row[5]) in self._layouts or self.name(row[5]) in KINDS):
            return True
        self._note(sqlite3.DatabaseError("database disk image is malformed"))
        return False

    def envelopes(self, first: int, last: int) -> Iterator[tuple[int, str, int, int, int | None]]:
        """(seq, kind, parent, rank, dur_ns) of the events with seq `first`..`last`."""
        query = "SELECT seq, t_ns, parent, rank, dur_ns, kind FROM event WHERE seq BETWEEN ? AND ?"
        rows = [row for row in self.rows(query, (first, last)) if self._is_sound(row)]
        names = {number: self.name(number) for number in {row[5] for row in rows}}
        for seq, _, parent, rank, dur_ns, kind in rows:
            yield seq, names[kind], _whole(parent), _whole(rank), dur_ns

    def _raw_bodies(self, kind: str, which: str, arguments: Raw) -> Iterator[tuple[object, Raw]]:
        layout = self._layouts.get(kind)
        if layout is None:
            return
        rows = self.rows(f"SELECT b.seq{layout.selected} FROM {layout.table} b WHERE b.seq {which}", arguments)
        self._texts.need([row[place + 1] for row in rows for place in layout.text_places])
        for row in rows:
            yield row[0], row[1:]

    def _event(self, row: Raw, raw: Raw | None) -> Event:
        seq, t_ns, dur_ns, parent, rank = (_whole(v) for v in row[:5])
        kind = self.name(row[5])
        body: Body
        extra = NOTHING
        layout = self._layouts.get(kind)
        if raw is not None and layout is not None:
            body, extra = layout.body(raw, self._texts)
        else:
            body = KINDS.get(kind, UnknownBody)()
        is_open = row[2] is None
        dur = None if is_open else dur_ns
        return Event(seq - 1, self.number, seq, t_ns, dur, kind, self.name(row[6]), parent, rank, body, extra)

    def columns(
        self, kind: str, names: tuple[str, ...], first: int, last: int, where: tuple[str, str] | None = None
    ) -> Iterator[Raw]:
        """Rows (seq, t_ns, dur_ns, parent, rank, *fields) of one kind in seq order, without making events.

        Fields that the stream lacks come as None. Read in batches, so that no read stays open between rows.
        `where` is a text field and the text it must have.
        """
        layout = self._layouts.get(kind)
        if layout is None:
            return
        storages = dict(layout.columns)
        chosen = [name for name in names if name in storages]
        is_wanted = ""
        wanted: Raw = ()
        if where is not None:
            if storages.get(where[0]) != "text":
                return
            is_wanted = f"AND b.{quoted(where[0])} IN (SELECT id FROM text WHERE value = ?) "
            wanted = (where[1],)
        select = "".join(f", b.{quoted(name)}" for name in chosen)
        query = (
            f"SELECT {ENVELOPE}{select} FROM {layout.table} b JOIN event e ON e.seq = b.seq "
            f"WHERE b.seq > ? AND b.seq <= ? {is_wanted}ORDER BY b.seq LIMIT {BATCH}"
        )
        done = first - 1
        while rows := self.rows(query, (done, last, *wanted)):
            stored = dict(zip(chosen, list(zip(*rows, strict=True))[5:], strict=True))
            fields = [
                self._texts.column(storages[name], stored[name]) if name in stored else [None] * len(rows)
                for name in names
            ]
            for row, *values in zip(rows, *fields, strict=True):
                yield (*row[:5], *values)
            done = _whole(rows[-1][0])
            if len(rows) < BATCH:
                return

    def close(self) -> None:
        """Close the file and drop a private copy of it."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _is_young(db: sqlite3.Connection) -> bool:
    """True for a file whose writer has not laid out its tables yet."""
    try:
        return bool(db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0)
    except sqlite3.DatabaseError:
        return False
