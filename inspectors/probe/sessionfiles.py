"""What a client may take of the session it is let into: files with a session's names, a piece at a time, never written.

Streams are given row by row: a copy of the bytes of a file that SQLite is writing would be torn, and opening it beside
SQLite, in the process that writes it, would drop SQLite's own locks.
"""

from __future__ import annotations

import base64
import contextlib
import math
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

MOST_FILES = 4096
MOST_BYTES = 256 << 10
MOST_ROWS = 4096
MOST_REPLY_BYTES = 512 << 10
_PLAIN = re.compile(r"session\.json|host\.log|host\.log\.times|stacks\.txt")
_STREAM = re.compile(r"streams/[0-9]{1,10}-[0-9]{1,6}\.sqlite")
_TABLE = re.compile(r"[a-z][a-z0-9_]{0,60}")
_Row = Sequence[Any]
_AS_THEY_ARE = frozenset({int, str, type(None)})


def listing(folder: Path) -> dict[str, Any]:
    """Names, sizes and times of the files that can be taken; of a stream they say little, its log is another file."""
    names = ("session.json", "host.log", "host.log.times", "stacks.txt")
    found = [folder / name for name in names] + sorted((folder / "streams").glob("*.sqlite"))[:MOST_FILES]
    files = []
    for path in found:
        name = path.relative_to(folder).as_posix()
        if _STREAM.fullmatch(name) or _PLAIN.fullmatch(name):
            with contextlib.suppress(OSError, ValueError):
                facts = _inside(folder, name).stat()
                files.append({"name": name, "bytes": facts.st_size, "changed_ns": facts.st_mtime_ns})
    return {"files": files}


def piece(folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Bytes of the manifest or of a log from `start` on, at most MOST_BYTES, in base64."""
    name, start = str(asked.get("name")), int(asked.get("start", 0))
    if not _PLAIN.fullmatch(name):
        raise ValueError(f"{name!r} is no file of a session that is given in pieces")
    if not 0 <= start < 1 << 60:
        raise ValueError(f"a file does not begin at {start}")
    try:
        with _inside(folder, name).open("rb") as file:
            file.seek(start)
            data = file.read(MOST_BYTES)
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror}") from error
    return {"start": start, "data": base64.b64encode(data).decode("ascii")}


def tables(folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """The tables of a stream with their columns."""
    with _stream(folder, asked) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        known = [name for name in names if _TABLE.fullmatch(name)]
        return {"tables": {name: [row[1] for row in db.execute(f'PRAGMA table_info("{name}")')] for name in known}}


def rows(folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Rows of a table of a stream, each after its number: those after the number `after`, or those `numbers`."""
    table, numbers = str(asked.get("table")), asked.get("numbers")
    if not _TABLE.fullmatch(table):
        raise ValueError(f"{table!r} is no table of a stream")
    with _stream(folder, asked) as db:
        if isinstance(numbers, list):
            wanted = [int(number) for number in numbers[:MOST_ROWS]]
            marks = ",".join("?" * len(wanted))
            found = db.execute(f'SELECT rowid, * FROM "{table}" WHERE rowid IN ({marks})', wanted)  # noqa: S608 - a plain name
            return _reply(found)
        after = int(asked.get("after", 0))
        found = db.execute(f'SELECT rowid, * FROM "{table}" WHERE rowid > ? ORDER BY rowid LIMIT {MOST_ROWS}', (after,))  # noqa: S608
        return _reply(found)


def _reply(found: sqlite3.Cursor) -> dict[str, Any]:
    """As many rows as fit; `is_all` when there were no more."""
    out: list[_Row] = []
    size = 0
    for row in found:
        kinds = set(map(type, row))
        size += 16 * len(row) + (sum(len(one) for one in row if isinstance(one, str)) if str in kinds else 0)
        if out and size > MOST_REPLY_BYTES:
            return {"rows": out, "is_all": False}
        out.append(row if kinds <= _AS_THEY_ARE else [_value(one) for one in row])
    return {"rows": out, "is_all": len(out) < MOST_ROWS}


def _value(one: Any) -> Any:
    """A value as JSON has it; numbers that JSON has no word for as a list of their name."""
    if isinstance(one, float) and not math.isfinite(one):
        return [repr(one)]
    return one if one is None or isinstance(one, (int, float, str)) else str(one)


@contextlib.contextmanager
def _stream(folder: Path, asked: dict[str, Any]) -> Iterator[sqlite3.Connection]:
    name = str(asked.get("name"))
    if not _STREAM.fullmatch(name):
        raise ValueError(f"{name!r} is no stream of a session")
    try:
        path = _inside(folder, name).absolute()
        db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=1.0, isolation_level=None)
        try:
            db.text_factory = lambda data: data.decode("utf-8", "replace")
            db.execute("PRAGMA query_only=ON")
            yield db
        finally:
            db.close()
    except (OSError, sqlite3.Error) as error:
        raise ValueError(f"{name} cannot be read: {error}") from error


def _inside(folder: Path, name: str) -> Path:
    """The file of that name; a link that leads out of the session is no file of it."""
    path = (folder / name).resolve(strict=True)
    if not path.is_file() or not path.is_relative_to(folder.resolve()):
        raise ValueError(f"{name} is no file of this session")
    return path
