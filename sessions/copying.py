"""Copies a stream as SQLite copies it: all that is committed, a write-ahead log included, in one file."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

from sessions.opening import connect


def copy_stream(path: Path, target: Path, change: Callable[[sqlite3.Connection], None]) -> None:
    """Write a stream to a new file `target`, then let `change` change that; the stream itself is only read.

    Raises SessionError for what is no stream and sqlite3.Error for one that cannot be read.
    """
    opened = connect(path)
    try:
        with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as db:
            opened.db.backup(db)
            db.execute("PRAGMA journal_mode=DELETE")
            change(db)
    finally:
        opened.close()
