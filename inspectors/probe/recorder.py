"""The writer of one process's stream: events are buffered and committed to SQLite every 100 ms or 2,000 events."""

from __future__ import annotations

import atexit
import os
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from inspectors.probe.events import NO_RANK, Body, ProcessStarted, RecordingCapped, field_specs
from inspectors.probe.streamfile import StreamFile

if TYPE_CHECKING:
    from collections.abc import Callable

COMMIT_EVENTS = 2_000
COMMIT_SECONDS = 0.1
DEFAULT_MAX_EVENTS = 20_000_000

Row = list[object]


class Recorder:
    """Writes events of this process into `folder/streams/`; the file opens on the first event.

    Errors of the disk never reach the caller: recording ends, one line goes to standard error.
    """

    def __init__(self, folder: Path, level: str = "calls", max_events: int = DEFAULT_MAX_EVENTS) -> None:
        self.folder, self.level, self.max_events = folder, level, max_events
        self.on_event: Callable[[int, Body, int], None] | None = None
        self.on_end: Callable[[int, Body, int], None] | None = None
        self._start_afresh()
        os.register_at_fork(after_in_child=self._start_afresh)
        atexit.register(self.close)

    def _start_afresh(self) -> None:
        self._lock = threading.RLock()
        self._file: StreamFile | None = None
        self._is_dead = self._is_capped = False
        self._seq = self._dropped = 0
        self._events: list[Row] = []
        self._bodies: list[tuple[Body, Row]] = []
        self._open_rows: dict[int, tuple[Row, Body]] = {}
        self._finished: list[tuple[int, int, Body | None]] = []
        self._spans = threading.local()
        self._wake = threading.Event()
        self._flusher: threading.Thread | None = None

    @property
    def dropped(self) -> int:
        """Events counted but not kept after the cap."""
        return self._dropped

    def point(self, body: Body, rank: int = NO_RANK, stage: str | None = None) -> int:
        """Record an event without duration; returns its seq, 0 when recording has ended."""
        return self._append(body, rank, stage, 0)

    def measured(self, body: Body, rank: int, start_ns: int, dur_ns: int) -> int:
        """Record a span that is already over, from monotonic times in ns; returns its seq."""
        return self._append(body, rank, None, dur_ns, start_ns)

    def begin(self, body: Body, rank: int = NO_RANK) -> int:
        """Record the entry of a span; every event of this thread until `end` is inside it."""
        seq = self._append(body, rank, None, None)
        self._stack().append(seq)
        return seq

    def end(self, seq: int, body: Body | None = None) -> None:
        """Record the exit of a span; a `body` given replaces the facts recorded at its entry."""
        now = time.monotonic_ns()
        stack = self._stack()
        if seq in stack:
            del stack[stack.index(seq) :]
        with self._lock:
            entry = self._open_rows.pop(seq, None)
            if entry is None or self._is_dead:
                return
            row, was = entry
            dur_ns = now - int(row[1])  # type: ignore[call-overload]
            row[2] = dur_ns
            self._finished.append((seq, dur_ns, body))
            said = body or was
        if self.on_end is not None:
            self.on_end(seq, said, int(row[6]))  # type: ignore[call-overload]

    def current_span(self) -> int:
        """The seq of this thread's innermost open span, 0 outside any."""
        stack = self._stack()
        return stack[-1] if stack else 0

    def _stack(self) -> list[int]:
        stack: list[int] | None = getattr(self._spans, "stack", None)
        if stack is None:
            stack = self._spans.stack = []
        return stack

    def _append(self, body: Body, rank: int, stage: str | None, dur_ns: int | None, t_ns: int = 0) -> int:
        parent = self.current_span()
        with self._lock:
            if self._is_dead or not self._has_room(body):
                return 0
            self._seq += 1
            seq = self._seq
            if seq == 1 and not isinstance(body, ProcessStarted):
                self._announce()
                self._seq += 1
                seq = self._seq
            row: Row = [seq, t_ns or time.monotonic_ns(), dur_ns, body.kind, stage or body.stage, parent, rank]
            self._events.append(row)
            self._bodies.append((body, row))
            if dur_ns is None:
                self._open_rows[seq] = (row, body)
            is_full = len(self._events) >= COMMIT_EVENTS
        self._ensure_flusher()
        if is_full:
            self.flush()
        if self.on_event is not None:
            self.on_event(seq, body, rank)
        return seq

    def _announce(self) -> None:
        body = ProcessStarted(
            pid=os.getpid(), parent_pid=os.getppid(), argv=tuple(sys.argv), python=sys.version.split()[0], level=self.level
        )
        row: Row = [1, time.monotonic_ns(), 0, body.kind, body.stage, 0, NO_RANK]
        self._events.append(row)
        self._bodies.append((body, row))

    def _has_room(self, body: Body) -> bool:
        if self._seq < self.max_events or isinstance(body, RecordingCapped):
            return True
        if not self._is_capped:
            self._is_capped = True
            self._append(RecordingCapped(limit="max_events", value=self.max_events), NO_RANK, None, 0)
        self._dropped += 1
        return False

    def _ensure_flusher(self) -> None:
        if self._flusher is None:
            self._flusher = threading.Thread(target=self._flush_regularly, name="loadscope-recorder", daemon=True)
            self._flusher.start()

    def _flush_regularly(self) -> None:
        wake = self._wake
        while not wake.wait(COMMIT_SECONDS):
            if self._events or self._finished:
                self.flush()

    def flush(self) -> None:
        """Commit everything recorded so far; a failing disk ends the recording, never the host."""
        with self._lock:
            events, self._events = self._events, []
            bodies, self._bodies = self._bodies, []
            finished, self._finished = self._finished, []
            if self._is_dead or not (events or finished):
                return
            try:
                if self._file is None:
                    self._file = StreamFile.create(self.folder / "streams")
                self._file.write(events, bodies, finished, self._dropped)
            except (sqlite3.Error, OSError) as error:
                self._die(error)

    def _die(self, error: Exception) -> None:
        self._is_dead = True
        print(f"loadscope: recording ended, the host goes on: {error} ({self.folder})", file=sys.stderr)

    def close(self) -> None:
        """Commit, mark the stream complete and make it readable without a write-ahead log."""
        self._wake.set()
        self.flush()
        with self._lock:
            if self._file is not None and not self._is_dead:
                try:
                    self._file.close(self._dropped)
                except (sqlite3.Error, OSError) as error:
                    self._die(error)
            self._file, self._is_dead = None, True


__all__ = ["Recorder", "field_specs"]
