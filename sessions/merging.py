"""Several sessions as one: ranks or hosts that were recorded apart, their clocks brought together."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sessions.copying import copy_stream
from sessions.errors import SessionError
from sessions.hostlog import LOG, LOG_TIMES
from sessions.manifest import Manifest
from sessions.opening import connect

_SAME_CLOCK_NS = 1_000_000_000
"""Monotonic clocks that differ by less, seen from the wall clocks, are one: that of one machine since its start."""
_STREAMS_A_SESSION = 1_000
_BADNESS = {"ok": 0, "running": 1, "interrupted": 2, "killed": 3, "failed": 4}


def merge(folders: Sequence[Path], target: Path) -> Path:
    """Write the sessions in `folders` as one session `target`, a folder that must not be there; returns it.

    Streams are copied. Those of another machine, or from before a restart, get the time of the first one's clock by
    the wall clocks of both, and are as far off as these. Raises SessionError for fewer than two sessions or for one
    without a stream, OSError where `target` cannot be written; then nothing is left of it.
    """
    if len(folders) < 2:
        raise SessionError(f"{len(folders)} session to merge, at least two are wanted", "Name more session folders.")
    manifests = [Manifest.read(folder) for folder in folders]
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        (draft / "streams").mkdir(parents=True)
        first = _clock(folders[0])
        shifts = [_shift(_clock(folder), first) for folder in folders]
        for number, (folder, shift) in enumerate(zip(folders, shifts, strict=True)):
            for stream in _streams(folder):
                _copy(stream, draft / "streams" / _name(stream, number), shift)
            _append_log(folder, draft, shift)
        _merged(manifests, folders, shifts, target.name).write(draft)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _streams(folder: Path) -> list[Path]:
    found = [path for path in sorted((folder / "streams").glob("*.sqlite")) if path.stat().st_size]
    if not found:
        raise SessionError(f"{folder}: no stream to merge", "Leave it out, or record the load again.")
    return found


def _clock(folder: Path) -> int:
    """Wall clock less monotonic clock, in ns, where the session's first stream was opened."""
    opened = connect(_streams(folder)[0])
    try:
        meta = dict(opened.db.execute("SELECT key, value FROM meta"))
        return int(meta["opened_unix_ns"]) - int(meta["opened_monotonic_ns"])
    except (sqlite3.Error, KeyError, ValueError) as error:
        raise SessionError(f"{folder}: its clocks are not told: {error}", "Open it by itself.") from error
    finally:
        opened.close()


def _shift(clock: int, first: int) -> int:
    return clock - first if abs(clock - first) > _SAME_CLOCK_NS else 0


def _name(stream: Path, number: int) -> str:
    """`<pid>-<n>.sqlite`, with numbers of their own for each session: process ids of two machines may be the same."""
    pid, _, n = stream.stem.partition("-")
    return f"{pid}-{number * _STREAMS_A_SESSION + int(n)}.sqlite"


def _copy(stream: Path, target: Path, shift_ns: int) -> None:
    try:
        copy_stream(stream, target, partial(_move, shift_ns))
    except sqlite3.Error as error:
        what = f"{stream}: cannot be copied: {error}"
        raise SessionError(what, "Leave its session out, or open it alone.") from error


def _move(shift_ns: int, db: sqlite3.Connection) -> None:
    if shift_ns:
        db.execute("UPDATE event SET t_ns = t_ns + ?", (shift_ns,))
        db.execute("UPDATE rollup SET first_t_ns = first_t_ns + ?, last_t_ns = last_t_ns + ?", (shift_ns, shift_ns))
        moved = "CAST(CAST(value AS INTEGER) + ? AS TEXT)"
        db.execute(f"UPDATE meta SET value = {moved} WHERE key = 'opened_monotonic_ns'", (shift_ns,))


def _append_log(folder: Path, draft: Path, shift_ns: int) -> None:
    source, target = folder / LOG, draft / LOG
    if not source.exists():
        return
    begin = target.stat().st_size if target.exists() else 0
    with source.open("rb") as reading, target.open("ab") as writing:
        shutil.copyfileobj(reading, writing)
    times = folder / LOG_TIMES
    if times.exists():
        with (draft / LOG_TIMES).open("a", encoding="ascii") as writing:
            for line in times.read_text(encoding="ascii", errors="replace").splitlines():
                at, _, offset = line.partition(" ")
                if at.isdigit() and offset.isdigit():
                    writing.write(f"{int(at) + shift_ns} {int(offset) + begin}\n")


def _merged(manifests: Sequence[Manifest], folders: Sequence[Path], shifts: Sequence[int], name: str) -> Manifest:
    outcomes = [one.outcome for one in manifests if one.outcome is not None]
    worst = max(outcomes, key=lambda one: _BADNESS.get(one.state, len(_BADNESS)), default=None)
    told = [{"session": str(f), "shift_ns": shift} for f, shift in zip(folders, shifts, strict=True)]
    first = manifests[0]
    late = next(({"attached": one.extra["attached"]} for one in manifests if one.attached_at), {})
    return dataclasses.replace(
        first,
        id=name,
        tp=max(one.tp for one in manifests),
        engines=tuple(dict.fromkeys(engine for one in manifests for engine in one.engines)),
        outcome=worst,
        extra={**first.extra, **late, "merged_from": told},
    )
