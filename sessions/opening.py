"""Opening a stream's SQLite file for reading without writing beside it: live, closed, crashed or on read-only media."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sessions.errors import SessionError
from sessions.liveness import is_writer_alive

BUSY_SECONDS = 5.0
_WAL_MARK = 2
_WAL_MARK_AT = 18
_HEADER = b"SQLite format 3\x00"


@dataclass(frozen=True)
class Opened:
    """A connection and how it was made. `is_shared`: it sees later commits itself; else `stamp` tells of changes."""

    db: sqlite3.Connection
    is_shared: bool
    stamp: tuple[int, ...]
    copy: tempfile.TemporaryDirectory[str] | None = None

    def close(self) -> None:
        """Close the connection and drop the private copy, if one was made."""
        self.db.close()
        if self.copy is not None:
            self.copy.cleanup()


def stamp(path: Path) -> tuple[int, ...]:
    """Size and time of the file and its write-ahead log: changes whenever a writer committed."""
    out: list[int] = []
    for file in (path, _wal(path)):
        out += _facts(file)
    return tuple(out)


def _facts(file: Path) -> list[int]:
    try:
        facts = file.stat()
    except OSError:
        return [-1, -1]
    return [facts.st_size, facts.st_mtime_ns]


def connect(path: Path) -> Opened:
    """Open `path` read-only.

    A file of a live writer is shared with it. The log of a writer that is gone is read from a private copy, because
    SQLite would make or mend its lock file in the session folder. SessionError when it is no SQLite file.
    """
    seen = stamp(path)
    header = _header(path)
    if header[_WAL_MARK_AT] != _WAL_MARK:
        return Opened(_open(path, "mode=ro"), is_shared=True, stamp=seen)
    if seen[2] <= 0:
        return Opened(_open(path, "mode=ro&immutable=1"), is_shared=False, stamp=seen)
    if is_writer_alive(path) and path.with_name(path.name + "-shm").exists():
        try:
            return Opened(_checked(_open(path, "mode=ro")), is_shared=True, stamp=seen)
        except sqlite3.DatabaseError:
            pass  # e.g. a lock file we may not map: the private copy below reads as well
    return _copied(path, seen)


def _copied(path: Path, seen: tuple[int, ...]) -> Opened:
    folder = tempfile.TemporaryDirectory(prefix="loadscope-read-")
    target = Path(folder.name) / "stream.sqlite"
    shutil.copyfile(path, target)
    if _wal(path).exists():
        shutil.copyfile(_wal(path), _wal(target))
    return Opened(_open(target, "mode=rw"), is_shared=False, stamp=seen, copy=folder)


def _header(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError as error:
        raise SessionError(f"{path}: cannot be read: {error}", "Check the folder's permissions.") from error
    if len(header) < 100 or not header.startswith(_HEADER):
        raise SessionError(
            f"{path}: not a stream: expected a SQLite file, found {len(header)} bytes of something else",
            "The file was cut off or overwritten; the other streams of the session stay readable.",
        )
    return header


def _open(path: Path, options: str) -> sqlite3.Connection:
    uri = f"{path.resolve().as_uri()}?{options}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def _checked(db: sqlite3.Connection) -> sqlite3.Connection:
    try:
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError:
        db.close()
        raise
    return db


def _wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")
