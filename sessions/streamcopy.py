"""A copy of one stream of another machine, kept up to date row by row; nothing that comes is trusted."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sessions.layout import table_of

Ask = Callable[[dict[str, Any]], dict[str, Any]]
Count = Callable[[int], None]
Columns = dict[str, tuple[str, ...]]

_KEYS = {"event": "seq", "text": "id"}
_NEEDED = frozenset({"meta", "text", "field", "event", "rollup"})
_NAME = re.compile(r"[a-z][a-z0-9_]{0,60}")
_MOST_TABLES, _MOST_COLUMNS, _MOST_ASKED = 200, 200, 1000
_MOST_NUMBER = 1 << 62
_AS_THEY_ARE = frozenset({int, str, type(None)})
_NOT_FINITE = {"inf": float("inf"), "-inf": float("-inf"), "nan": float("nan")}


class StrangeReplyError(Exception):
    """The other side sent what no host sends."""


class StreamCopy:
    """`path` is the local file; `ask` asks the host, `count` is told of bytes that came and may raise.

    A row has the same number here and there, so what is missing is what has higher numbers; of spans that were open
    their ends are asked for. Readers see each `pull` at once or not at all.
    """

    def __init__(self, path: Path, name: str, ask: Ask, count: Count) -> None:
        self._path, self._name, self._ask, self._count = path, name, ask, count
        self._columns: Columns = {}
        self._last: dict[str, int] = {}
        self._is_checked = self._is_ended = False

    def pull(self) -> bool:
        """Take what is new; False when there was nothing. Raises StrangeReplyError, sqlite3.Error and as `ask` does."""
        if self._is_ended:
            return False
        if not self._is_checked and self._path.exists():
            self._forget_another()
        self._is_checked = True
        if not self._path.exists():
            return self._begin()
        with contextlib.closing(_connect(self._path)) as db:
            db.execute("BEGIN IMMEDIATE")
            is_changed = self._take(db)
            db.execute("COMMIT")
        return is_changed

    def _begin(self) -> bool:
        """The first copy gets its name when it is whole."""
        if not self._told_tables().keys() >= _NEEDED:
            return False  # its writer has not laid it out yet
        draft = self._path.with_suffix(".part")
        draft.unlink(missing_ok=True)
        self._last = {}
        try:
            with contextlib.closing(_connect(draft)) as db:
                db.execute("BEGIN")
                self._take(db)
                db.execute("COMMIT")
            draft.replace(self._path)
        finally:
            draft.unlink(missing_ok=True)
        return True

    def _forget_another(self) -> None:
        """A file of the same name may be that of a process that had the same id before."""
        told = {str(row[1]): row[2] for row in self._rows("meta", 3, after=0)}
        with contextlib.closing(_connect(self._path)) as db:
            kept = _facts(db)
        if kept.get("opened_unix_ns") != told.get("opened_unix_ns"):
            self._path.unlink()

    def _take(self, db: sqlite3.Connection) -> bool:
        """In an order in which what is told later knows everything that was told before."""
        is_changed = self._take_ends(db)
        columns = self._columns or self._tables()
        self._make(db, columns)
        if self._take_new(db, "rollup"):
            is_changed, columns = True, self._tables()
            self._make(db, columns)
            bodies = sorted(table for table in columns if table.startswith("body_"))
            for table in ("event", *bodies, "field", "text"):
                self._take_new(db, table)
        before = _facts(db)
        self._last["meta"] = 0
        self._take_new(db, "meta")
        self._is_ended = _facts(db).get("is_closed") == "1"
        return is_changed or before != _facts(db)

    def _take_ends(self, db: sqlite3.Connection) -> bool:
        """The ends of spans that were open, with the facts told at the end."""
        if not _has(db, "event"):
            return False
        query = "SELECT e.seq, t.value FROM event e JOIN text t ON t.id = e.kind WHERE e.dur_ns IS NULL LIMIT ?"
        kinds = {int(seq): str(kind) for seq, kind in db.execute(query, (_MOST_ASKED,))}
        if not kinds:
            return False
        self._columns = self._columns or self._tables()
        found = self._asked("event", list(kinds))
        ended = [row for row in found if "dur_ns" in self._columns["event"] and row[self._dur_place()] is not None]
        _insert(db, "event", self._columns["event"], ended)
        for table in {table_of(kinds[row[0]]) for row in ended if row[0] in kinds} & self._columns.keys():
            if _has(db, table):
                seqs = [row[0] for row in ended if table_of(kinds.get(row[0], "")) == table]
                _insert(db, table, self._columns[table], self._asked(table, seqs))
        return bool(ended)

    def _dur_place(self) -> int:
        return self._columns["event"].index("dur_ns") + 1

    def _asked(self, table: str, numbers: list[int]) -> list[list[Any]]:
        return self._rows(table, len(self._columns[table]) + 1, numbers=numbers)

    def _tables(self) -> Columns:
        if not self._told_tables().keys() >= _NEEDED:
            raise StrangeReplyError("a stream without a stream's tables")
        return self._columns

    def _told_tables(self) -> Columns:
        told = self._ask({"do": "tables", "name": self._name}).get("tables")
        if not isinstance(told, dict) or len(told) > _MOST_TABLES:
            raise StrangeReplyError("a stream without tables")
        for table, columns in told.items():
            names = columns if isinstance(columns, list) and 0 < len(columns) <= _MOST_COLUMNS else [None]
            if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in (table, *names)):
                raise StrangeReplyError(f"a table {table!r:.60} with columns {columns!r:.60}")
            if len(set(names)) != len(names):
                raise StrangeReplyError(f"a table {table} with a column twice")
        self._columns = {table: tuple(columns) for table, columns in told.items()}
        return self._columns

    def _make(self, db: sqlite3.Connection, columns: Columns) -> None:
        for table, names in columns.items():
            key = _KEYS.get(table) or ("seq" if table.startswith("body_") else "")
            said = ", ".join(f'"{name}"' + (" INTEGER PRIMARY KEY" if name == key else "") for name in names)
            if table in _NEEDED or table.startswith("body_"):
                db.execute(f'CREATE TABLE IF NOT EXISTS "{table}"({said})')

    def _take_new(self, db: sqlite3.Connection, table: str) -> bool:
        columns, is_all, is_new = self._columns[table], False, False
        if table not in self._last:
            self._last[table] = int(db.execute(f'SELECT ifnull(max(rowid), 0) FROM "{table}"').fetchone()[0])
        while not is_all:
            asked = {"do": "rows", "name": self._name, "table": table, "after": self._last[table]}
            reply = self._ask(asked)
            rows = self._checked(reply, len(columns) + 1)
            numbers = [row[0] for row in rows]
            if numbers != sorted(set(numbers)) or (numbers and numbers[0] <= self._last[table]):
                raise StrangeReplyError(f"rows of {table} that were not asked for")
            _insert(db, table, columns, rows)
            self._last[table] = numbers[-1] if numbers else self._last[table]
            is_new, is_all = is_new or bool(rows), reply.get("is_all") is not False or not rows
        return is_new

    def _rows(self, table: str, width: int, **which: object) -> list[list[Any]]:
        return self._checked(self._ask({"do": "rows", "name": self._name, "table": table, **which}), width)

    def _checked(self, reply: dict[str, Any], width: int) -> list[list[Any]]:
        rows = reply.get("rows")
        if not isinstance(rows, list):
            raise StrangeReplyError("rows that are no list")
        size = 0
        for row in rows:
            is_row = isinstance(row, list) and len(row) == width and type(row[0]) is int
            if not is_row or not 0 < row[0] < _MOST_NUMBER:
                raise StrangeReplyError(f"a row {row!r:.60}")
            kinds = set(map(type, row))
            if not kinds <= _AS_THEY_ARE:
                row[1:] = [_value(one) for one in row[1:]]
            size += 8 * width + (sum(len(one) for one in row if isinstance(one, str)) if str in kinds else 0)
        self._count(size)
        return rows


def _value(one: Any) -> int | float | str | None:
    if isinstance(one, list) and len(one) == 1 and str(one[0]) in _NOT_FINITE:
        return _NOT_FINITE[str(one[0])]
    if one is None or isinstance(one, (int, float, str)):
        return one
    raise StrangeReplyError(f"a value {one!r:.60}")


def _insert(db: sqlite3.Connection, table: str, columns: tuple[str, ...], rows: Iterable[list[Any]]) -> None:
    names = ", ".join(f'"{name}"' for name in columns)
    key = _KEYS.get(table) or ("seq" if table.startswith("body_") else "")
    if key in columns:  # the key is the row's number
        marks, values = ",".join("?" * len(columns)), (row[1:] for row in rows)
        db.executemany(f'INSERT OR REPLACE INTO "{table}"({names}) VALUES({marks})', values)
    else:
        marks = ",".join("?" * (len(columns) + 1))
        db.executemany(f'INSERT OR REPLACE INTO "{table}"(rowid, {names}) VALUES({marks})', rows)


def _has(db: sqlite3.Connection, table: str) -> bool:
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone() is not None


def _facts(db: sqlite3.Connection) -> dict[str, Any]:
    return dict(db.execute("SELECT key, value FROM meta"))


def _connect(path: Path) -> sqlite3.Connection:
    """No write-ahead log: readers open the file as what it is, one that changes."""
    db = sqlite3.connect(path, isolation_level=None, timeout=30.0)
    db.execute("PRAGMA journal_mode=DELETE")
    db.execute("PRAGMA synchronous=OFF")
    db.execute("PRAGMA cache_spill=OFF")
    return db
