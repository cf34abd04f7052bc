"""The writer of one process's stream: events are buffered and committed to SQLite every 100 ms or 500 events."""

from __future__ import annotations

import atexit
import os
import sqlite3
import sys
import threading
import time
from typing import TYPE_CHECKING

from inspectors.probe.events import NO_RANK, Body, ProcessStarted, RecordingCapped, field_specs
from inspectors.probe.streamfile import StreamFile
from inspectors.probe.streamrows import OpenSpan, StreamRows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COMMIT_EVENTS = 500
COMMIT_SECONDS = 0.1
DEFAULT_MAX_EVENTS = 20_000_000


class _Spans(threading.local):
    """The seqs of a thread's open spans, outermost first."""

    def __init__(self) -> None:
        self.stack: list[int] = []


class Recorder:
    """Writes events of this process into `folder/streams/`; the file opens on the first event.

    Errors of the disk never reach the caller: recording ends, one line goes to standard error.
    """

    def __init__(self, folder: Path, level: str = "calls", max_events: int = DEFAULT_MAX_EVENTS) -> None:
        self.folder, self.level, self.max_events = folder, level, max_events
        self.on_event: Callable[[int, Body, int], None] | None = None
        self.on_end: Callable[[int, Body, int], None] | None = None
        self._left_to_parent: list[StreamFile] = []
        self._file: StreamFile | None = None
        self._start_afresh()
        os.register_at_fork(before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._in_child)
        atexit.register(self.close)

    def _start_afresh(self) -> None:
        self._lock, self._write_lock = threading.RLock(), threading.RLock()
        self._is_dead = self._is_capped = False
        self._seq = self._dropped = self._flushed_ns = 0
        self._rows = StreamRows()
        self._open: dict[int, OpenSpan] = {}
        self._spans = _Spans()
        self._wake = threading.Event()
        self._flusher: threading.Thread | None = None

    @property
    def dropped(self) -> int:
        """Events counted but not kept after the cap."""
        return self._dropped

    def amend(self, seq: int, body: Body) -> None:
        """Replace the facts of an event that is over, by what became known only later."""
        with self._lock:
            if seq and not self._is_dead:
                self._rows.amend(seq, body)

    def point(self, body: Body, rank: int = NO_RANK, stage: str | None = None) -> int:
        """Record an event without duration; returns its seq, 0 when recording has ended."""
        return self._append(body, rank, stage, 0, 0)

    def measured(self, body: Body, rank: int, start_ns: int, dur_ns: int) -> int:
        """Record a span that is already over, from monotonic times in ns; returns its seq."""
        return self._append(body, rank, None, dur_ns, start_ns)

    def begin(self, body: Body, rank: int = NO_RANK) -> int:
        """Record the entry of a span; every event of this thread until `end` is inside it."""
        seq = self._append(body, rank, None, None, 0)
        self._spans.stack.append(seq)
        return seq

    def end(self, seq: int, body: Body | None = None) -> None:
        """Record the exit of a span; a `body` given replaces the facts recorded at its entry."""
        now = time.monotonic_ns()
        stack = self._spans.stack
        if stack and stack[-1] == seq:
            stack.pop()
        elif seq in stack:
            del stack[stack.index(seq) :]
        with self._lock:
            span = self._open.pop(seq, None)
            if span is None or self._is_dead:
                return
            self._rows.end(span, now - span.t_ns, body)
        if self.on_end is not None:
            self.on_end(seq, span.body if body is None else body, span.rank)

    def current_span(self) -> int:
        """The seq of this thread's innermost open span, 0 outside any."""
        stack = self._spans.stack
        return stack[-1] if stack else 0

    def adopt(self, seq: int) -> None:
        """Record what this thread does as inside a span of another thread, until `abandon`."""
        self._spans.stack.append(seq)

    def abandon(self, seq: int) -> None:
        """See `adopt`; the span itself goes on."""
        stack = self._spans.stack
        if seq in stack:
            del stack[stack.index(seq) :]

    def open_spans(self) -> tuple[int, ...]:
        """The seqs of this thread's open spans, outermost first."""
        return tuple(self._spans.stack)

    def depth(self) -> int:
        """How many spans of this thread are open."""
        return len(self._spans.stack)

    def unwind(self, depth: int) -> None:
        """End this thread's spans above `depth`: what a faulting inspector left open must not swallow later events."""
        stack = self._spans.stack
        while len(stack) > depth:
            seq = stack[-1]
            self.end(seq)
            if stack and stack[-1] == seq:
                stack.pop()

    def _append(self, body: Body, rank: int, stage: str | None, dur_ns: int | None, t_ns: int) -> int:
        stack, stage = self._spans.stack, body.stage if stage is None else stage
        parent = stack[-1] if stack else 0
        with self._lock:
            if self._is_dead or (self._seq >= self.max_events and not self._has_room(body)):
                return 0
            if self._seq == 0 and not isinstance(body, ProcessStarted):
                self._announce()
            seq = self._seq + 1
            t_ns = t_ns or time.monotonic_ns()
            if dur_ns is None:
                self._open[seq] = self._rows.begin(seq, t_ns, body, stage, parent, rank)
            else:
                self._rows.add(seq, t_ns, dur_ns, body, stage, parent, rank)
            self._seq = seq
        if self._flusher is None:
            self._start_flusher()
        if len(self._rows.batch.envelope) >= COMMIT_EVENTS:
            self.flush()
        if self.on_event is not None:
            self.on_event(seq, body, rank)
        return seq

    def _announce(self) -> None:
        python = sys.version.split()[0]
        argv = tuple(getattr(sys, "argv", ()))
        body = ProcessStarted(pid=os.getpid(), parent_pid=os.getppid(), argv=argv, python=python, level=self.level)
        self._rows.add(1, time.monotonic_ns(), 0, body, body.stage, 0, NO_RANK)
        self._seq = 1
        _close_with_multiprocessing(self.close)

    def _has_room(self, body: Body) -> bool:
        if isinstance(body, RecordingCapped):
            return True
        if not self._is_capped:
            self._is_capped = True
            self._append(RecordingCapped(limit="max_events", value=self.max_events), NO_RANK, None, 0, 0)
        self._dropped += 1
        return False

    def _start_flusher(self) -> None:
        with self._lock:
            if self._flusher is not None or self._wake.is_set():
                return
            self._flusher = threading.Thread(
                target=self._flush_regularly, args=(self._wake,), name="loadscope-recorder", daemon=True
            )
        try:
            self._flusher.start()
        except RuntimeError:
            self._flusher = threading.current_thread()  # no thread at shutdown: full buffers and close() still write

    def _flush_regularly(self, wake: threading.Event) -> None:
        """Commit what is 100 ms old.

        A busy thread commits its own full buffers: two threads that both want Python's
        lock thousands of times a second cost each other more than the commits do.
        """
        rest = COMMIT_SECONDS
        while not wake.wait(rest):
            rest = COMMIT_SECONDS - (time.monotonic_ns() - self._flushed_ns) / 1e9
            if rest <= 0:
                rest = COMMIT_SECONDS
                if self._rows.batch:
                    self.flush()

    def flush(self) -> None:
        """Commit everything recorded so far; a failing disk ends the recording, never the host."""
        with self._write_lock:
            with self._lock:
                self._flushed_ns = time.monotonic_ns()
                batch = self._rows.take()
                if self._is_dead or not batch:
                    return
            try:
                if self._file is None:
                    self._file = StreamFile.create(self.folder / "streams")
                self._file.write(batch, self._dropped)
            except Exception as error:
                self._die(error)

    def _die(self, error: Exception) -> None:
        self._is_dead = True
        self._wake.set()
        text = f"loadscope: recording ended, the host goes on: {error} ({self.folder})"
        try:
            print(text, file=sys.stderr)
        except (OSError, ValueError, AttributeError):
            self._rows.take()  # nowhere to say it

    def close(self) -> None:
        """Commit, mark the stream complete and make it readable without a write-ahead log."""
        self._wake.set()
        self.flush()
        with self._write_lock, self._lock:
            if self._file is not None and not self._is_dead:
                try:
                    self._file.close(self._dropped)
                except (sqlite3.Error, OSError) as error:
                    self._die(error)
            self._file, self._is_dead = None, True

    def move_to(self, folder: Path) -> None:
        """End this stream and begin another one in `folder`; spans that are open stay in the old one, without end."""
        hooks = self.on_event, self.on_end
        self.close()
        with self._write_lock, self._lock:
            self.folder = folder
            self._start_afresh()
        self.on_event, self.on_end = hooks

    def _before_fork(self) -> None:
        self._write_lock.acquire()
        self._lock.acquire()
        if self._file is not None:
            self._file.release()  # an open SQLite connection must not be carried into a child

    def _after_fork(self) -> None:
        self._lock.release()
        self._write_lock.release()

    def _in_child(self) -> None:
        if self._file is not None:
            self._left_to_parent.append(self._file)
        self._file = None
        was_closed = self._is_dead and self._wake.is_set()
        self._start_afresh()
        self._is_dead = was_closed


def _close_with_multiprocessing(close: Callable[[], None]) -> None:
    """A forked multiprocessing child leaves by `os._exit`, so its own finalizers are the only call at its end."""
    util, process = sys.modules.get("multiprocessing.util"), sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        util.Finalize(None, close, exitpriority=-100)


__all__ = ["Recorder", "field_specs"]
