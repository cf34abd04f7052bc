"""The one thread that folds a session: at most ten times a second, and only when something changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from textual.message import Message

from sessions.errors import SessionError
from sessions.session import Session
from workbench.tui.messages import ReadingFailed, SnapshotReady
from workbench.tui.snapshot import Folding, fault_of

REST_SECONDS = 0.1
REST_SHARE = 4
"""A fold is followed by a rest of so many times its own length, so that a huge live session leaves room for keys."""


class Reader:
    """Opens a session in its own thread and posts snapshots; `post` must be safe to call from that thread."""

    def __init__(self, path: Path, post: Callable[[Message], object]) -> None:
        self.path, self._post = path, post
        self._wake = threading.Event()
        self._is_stopped = False
        self._now: int | None = None
        self._wanted = 1
        self._thread = threading.Thread(target=self._run, name="loadscope-reader", daemon=True)
        self.session: Session | None = None

    def start(self) -> None:
        """Begin; the first snapshot comes as a message."""
        self._thread.start()

    def want(self, now: int | None) -> None:
        """Fold again as of another position (None: the end)."""
        self._now = now
        self._wanted += 1
        self._wake.set()

    def stop(self) -> None:
        """End the thread and close the session."""
        self._is_stopped = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        try:
            self.session = Session.open(self.path)
            self._follow(self.session)
        except SessionError as error:
            self._post(ReadingFailed(error.what, error.try_))
        except Exception as error:  # noqa: BLE001 - the screen must say that its reader ended, whatever ended it
            fault = fault_of(error)
            self._post(ReadingFailed(fault.what, fault.try_))
        finally:
            if self.session is not None and self._is_stopped:
                self.session.close()

    def _follow(self, session: Session) -> None:
        folding, done = Folding(session), 0
        if folding.is_large:
            self._post(SnapshotReady(folding.first()))
        while not self._is_stopped:
            wanted = self._wanted
            if session.refresh() or wanted != done or not folding.is_done:
                started = time.monotonic()
                self._post(SnapshotReady(folding.fold(self._now)))
                done = wanted
                self._rest(REST_SHARE * (time.monotonic() - started), done)
            if folding.is_done:
                folding.warm(lambda: self._is_stopped or self._wanted != done)  # noqa: B023 - called at once
            self._rest(REST_SECONDS, done)

    def _rest(self, seconds: float, done: int) -> None:
        if self._wanted == done:
            self._wake.wait(min(seconds, 2.0))
        self._wake.clear()
