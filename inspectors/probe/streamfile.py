"""One stream on disk: a SQLite file with interned text, an envelope table and one table a kind."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from typing import TYPE_CHECKING

from inspectors.probe.events import SCHEMA_VERSION, Body, field_specs

if TYPE_CHECKING:
    from pathlib import Path

_LAYOUT = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE text(id INTEGER PRIMARY KEY, value TEXT);
CREATE TABLE field(kind TEXT, name TEXT, storage TEXT, position INTEGER);
CREATE TABLE event(seq INTEGER PRIMARY KEY, t_ns INTEGER, dur_ns INTEGER, kind INTEGER, stage INTEGER,
                   parent INTEGER, rank INTEGER);
CREATE TABLE rollup(last_seq INTEGER, kind INTEGER, count INTEGER, first_seq INTEGER, first_t_ns INTEGER,
                    last_t_ns INTEGER);
"""


def table_of(kind: str) -> str:
    """The quoted table name of a kind: `"loader.called"` → `"body_loader_called"`."""
    return '"body_' + "".join(c if c.isalnum() else "_" for c in kind) + '"'


class StreamFile:
    """The open SQLite file of this process; not thread-safe by itself, the recorder holds its lock."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._db, self.path = connection, path
        self._ids: dict[str, int] = {}
        self._new_texts: list[tuple[int, str]] = []
        self._inserts: dict[str, str] = {}

    @classmethod
    def create(cls, folder: Path) -> StreamFile:
        """Make `folder/<pid>-<n>.sqlite`; raises OSError or sqlite3.Error when that cannot be written."""
        folder.mkdir(parents=True, exist_ok=True)
        path = _free_name(folder)
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        journal = db.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        db.execute("PRAGMA synchronous=NORMAL")
        db.executescript(_LAYOUT)
        stream = cls(db, path)
        stream._describe(journal)
        return stream

    def _describe(self, journal: str) -> None:
        facts = {
            "schema": SCHEMA_VERSION, "pid": os.getpid(), "parent_pid": os.getppid(),
            "argv": json.dumps(sys.argv), "python": sys.version.split()[0], "journal": journal,
            "opened_monotonic_ns": time.monotonic_ns(), "opened_unix_ns": time.time_ns(), "is_closed": 0, "dropped": 0,
        }  # fmt: skip
        self._db.executemany("INSERT INTO meta VALUES(?,?)", [(k, str(v)) for k, v in facts.items()])

    def write(
        self,
        events: list[list[object]],
        bodies: list[tuple[Body, list[object]]],
        finished: list[tuple[int, int, Body | None]],
        dropped: int,
    ) -> None:
        """Commit one batch: new events, their bodies, and the ends of spans (seq, dur_ns, replaced body)."""
        rows_by_table: dict[str, list[tuple[object, ...]]] = {}
        for body, row in bodies:
            rows_by_table.setdefault(self._insert_for(body), []).append((row[0], *self._values(body)))
        envelope = [(r[0], r[1], r[2], self._id(str(r[3])), self._id(str(r[4])), r[5], r[6]) for r in events]
        ended = {seq for seq, _, _ in finished} - {r[0] for r in events}
        for seq, _, body in finished:
            if body is not None:
                rows_by_table.setdefault(self._insert_for(body), []).append((seq, *self._values(body)))
        db = self._db
        db.execute("BEGIN")
        try:
            db.executemany("INSERT INTO text VALUES(?,?)", self._new_texts)
            db.executemany("INSERT INTO event VALUES(?,?,?,?,?,?,?)", envelope)
            for insert, rows in rows_by_table.items():
                db.executemany(insert, rows)
            db.executemany("UPDATE event SET dur_ns=? WHERE seq=?", [(d, s) for s, d, _ in finished if s in ended])
            db.executemany("INSERT INTO rollup VALUES(?,?,?,?,?,?)", _rollup(envelope))
            if dropped:
                db.execute("UPDATE meta SET value=? WHERE key='dropped'", (str(dropped),))
            db.execute("COMMIT")
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self._new_texts.clear()

    def _insert_for(self, body: Body) -> str:
        insert = self._inserts.get(body.kind)
        if insert is None:
            specs = field_specs(type(body))
            columns = ", ".join(f'"{s.name}"' for s in specs)
            table = table_of(body.kind)
            self._db.execute(f"CREATE TABLE {table}(seq INTEGER PRIMARY KEY{', ' if specs else ''}{columns})")
            described = [(body.kind, s.name, s.storage, n) for n, s in enumerate(specs)]
            self._db.executemany("INSERT INTO field VALUES(?,?,?,?)", described)
            marks = ",".join("?" * (len(specs) + 1))
            insert = self._inserts[body.kind] = f"INSERT OR REPLACE INTO {table} VALUES({marks})"
        return insert

    def _values(self, body: Body) -> list[object]:
        out: list[object] = []
        for spec in field_specs(type(body)):
            value = getattr(body, spec.name)
            if spec.storage == "text":
                out.append(self._id(value))
            elif spec.storage == "json":
                out.append(self._id(json.dumps(value, separators=(",", ":"))))
            else:
                out.append(value)
        return out

    def _id(self, text: str) -> int:
        known = self._ids.get(text)
        if known is None:
            known = self._ids[text] = len(self._ids) + 1
            self._new_texts.append((known, text))
        return known

    def close(self, dropped: int) -> None:
        """Mark the stream complete and fold the write-ahead log in, so that it reads from read-only media."""
        self._db.execute("UPDATE meta SET value=? WHERE key='dropped'", (str(dropped),))
        self._db.execute("UPDATE meta SET value='1' WHERE key='is_closed'")
        try:
            self._db.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.OperationalError:
            pass  # a live reader holds the log: the file stays in WAL mode and reads as well
        self._db.close()


def _free_name(folder: Path) -> Path:
    number = 0
    while (path := folder / f"{os.getpid()}-{number}.sqlite").exists():
        number += 1
    return path


def _rollup(envelope: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    if not envelope:
        return []
    last_seq = envelope[-1][0]
    by_kind: dict[object, list[tuple[object, ...]]] = {}
    for row in envelope:
        by_kind.setdefault(row[3], []).append(row)
    return [(last_seq, kind, len(rows), rows[0][0], rows[0][1], rows[-1][1]) for kind, rows in by_kind.items()]
