"""One stream on disk: a SQLite file with interned text, an envelope table and one table a kind."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
import time
from typing import TYPE_CHECKING

from inspectors.probe.events import SCHEMA_VERSION, Body, field_specs
from inspectors.probe.streamrows import Batch, Envelope, insert_into, table_of

if TYPE_CHECKING:
    from pathlib import Path

_PAGE_BYTES = 8192
"""The tables of all kinds are described on the first page then: a file that was cut off still says what it holds."""

_LAYOUT = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE text(id INTEGER PRIMARY KEY, value TEXT);
CREATE TABLE field(kind TEXT, name TEXT, storage TEXT, position INTEGER);
CREATE TABLE event(seq INTEGER PRIMARY KEY, t_ns INTEGER, dur_ns INTEGER, kind INTEGER, stage INTEGER,
                   parent INTEGER, rank INTEGER);
CREATE TABLE rollup(last_seq INTEGER, kind INTEGER, count INTEGER, first_seq INTEGER, first_t_ns INTEGER,
                    last_t_ns INTEGER);
"""


class StreamFile:
    """The open SQLite file of this process; not thread-safe by itself, the recorder holds its lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._inserts: dict[type[Body], str] = {}

    @classmethod
    def create(cls, folder: Path) -> StreamFile:
        """Make `folder/<pid>-<n>.sqlite`; raises OSError or sqlite3.Error when that cannot be written.

        The file gets its name when it has all its tables: a reader never finds half a layout.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = _free_name(folder)
        draft = path.with_suffix(".part")
        stream = cls(draft)
        try:
            stream._db.execute(f"PRAGMA page_size={_PAGE_BYTES}")
            stream._db.execute("PRAGMA journal_mode=OFF")
            stream._db.executescript(f"BEGIN;{_LAYOUT}COMMIT;")
            stream._describe()
            stream.release()
            draft.rename(path)
        except (sqlite3.Error, OSError):
            draft.unlink(missing_ok=True)
            raise
        stream.path = path
        journal = stream._db.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        stream._db.execute("UPDATE meta SET value=? WHERE key='journal'", (journal,))
        return stream

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA synchronous=NORMAL")
        return self._connection

    def release(self) -> None:
        """Close the connection for now; the next write opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _describe(self) -> None:
        facts = {
            "schema": SCHEMA_VERSION, "pid": os.getpid(), "parent_pid": os.getppid(),
            "argv": json.dumps(getattr(sys, "argv", [])), "python": sys.version.split()[0], "journal": "delete",
            "opened_monotonic_ns": time.monotonic_ns(), "opened_unix_ns": time.time_ns(), "is_closed": 0, "dropped": 0,
        }  # fmt: skip
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO meta VALUES(?,?)", [(k, str(v)) for k, v in facts.items()])
        self._db.execute("COMMIT")

    def write(self, batch: Batch, dropped: int) -> None:
        """Commit one batch: new events with their bodies, and the ends of spans."""
        db = self._db
        inserts = [(self._inserts.get(kind) or self._declare(kind), rows) for kind, rows in batch.rows.items()]
        db.execute("BEGIN")
        try:
            db.executemany("INSERT INTO text VALUES(?,?)", batch.texts)
            db.executemany("INSERT INTO event VALUES(?,?,?,?,?,?,?)", batch.envelope)
            for insert, rows in inserts:
                db.executemany(insert, rows)
            db.executemany("UPDATE event SET dur_ns=? WHERE seq=?", batch.ends)
            db.executemany("INSERT INTO rollup VALUES(?,?,?,?,?,?)", _rollup(batch.envelope))
            if dropped:
                db.execute("UPDATE meta SET value=? WHERE key='dropped'", (str(dropped),))
            db.execute("COMMIT")
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _declare(self, kind: type[Body]) -> str:
        specs = field_specs(kind)
        columns = "".join(f', "{s.name}"' for s in specs)
        self._db.execute(f"CREATE TABLE IF NOT EXISTS {table_of(kind.kind)}(seq INTEGER PRIMARY KEY{columns})")
        described = [(kind.kind, s.name, s.storage, n) for n, s in enumerate(specs)]
        self._db.executemany("INSERT INTO field VALUES(?,?,?,?)", described)
        insert = self._inserts[kind] = insert_into(kind)
        return insert

    def close(self, dropped: int) -> None:
        """Mark the stream complete and fold the write-ahead log in, so that it reads from read-only media."""
        self._db.execute("UPDATE meta SET value=? WHERE key='dropped'", (str(dropped),))
        self._db.execute("UPDATE meta SET value='1' WHERE key='is_closed'")
        with contextlib.suppress(sqlite3.OperationalError):  # a live reader holds the log: then it stays as it is
            self._db.execute("PRAGMA journal_mode=DELETE")
        self._db.close()


def _free_name(folder: Path) -> Path:
    number = 0
    while (path := folder / f"{os.getpid()}-{number}.sqlite").exists():
        number += 1
    return path


def _rollup(envelope: list[Envelope]) -> list[tuple[int, ...]]:
    if not envelope:
        return []
    last_seq = envelope[-1][0]
    spans: dict[int, list[int]] = {}
    for row in envelope:
        span = spans.get(row[3])
        if span is None:
            spans[row[3]] = [1, row[0], row[1], row[1]]
        else:
            span[0] += 1
            span[3] = row[1]
    return [(last_seq, kind, *span) for kind, span in spans.items()]
