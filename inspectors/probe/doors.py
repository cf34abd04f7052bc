"""The sockets at which a host listens, and how many may come in by each: strangers are shown out after seconds."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from inspectors.probe.lines import Lines

MAX_STRANGERS = 16
"""Connections that have not said their token yet, of one door; more are turned away."""
MAX_CLIENTS = 32
_PAUSE_SECONDS = 0.2
_MAX_PATH_BYTES = 100  # AF_UNIX holds 108, a session folder is often longer

Serve = Callable[["Visit"], None]


class Visit:
    """One connection, a stranger's until `is_let_in`."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection, self.lines = connection, Lines(connection)
        self.is_let_in = self.takes_files = False


class Door:
    """One listening socket; every visit is served in a thread of its own."""

    def __init__(self, listener: socket.socket, serve: Serve) -> None:
        self.listener, self._serve = listener, serve
        self._changed = threading.Condition()
        self._visits: set[Visit] = set()

    def open(self) -> None:
        """Begin to accept."""
        threading.Thread(target=self._accept, name="loadscope-control", daemon=True).start()

    def close(self) -> None:
        """Accept nobody any more; who is in stays."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept
        self.listener.close()

    def leave_to_parent(self) -> None:
        """In a forked child: all of this is the parent's, whose clients would not see it end."""
        self.listener.close()
        for visit in self._visits:
            visit.connection.close()

    def await_takers(self, seconds: float) -> None:
        """Wait until those who take the session's files have left, at most so long."""
        with self._changed:
            self._changed.wait_for(lambda: not any(visit.takes_files for visit in self._visits), seconds)

    def _accept(self) -> None:
        while self.listener.fileno() >= 0:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                time.sleep(_PAUSE_SECONDS)  # the host is out of files for now, or the door was closed
                continue
            _keep_alive(connection)
            visit = Visit(connection)
            if not self._has_room(visit):
                _turn_away(visit)
                continue
            try:
                threading.Thread(target=self._receive, args=(visit,), name="loadscope-client", daemon=True).start()
            except RuntimeError:  # the host can have no more threads
                self._gone(visit)

    def _has_room(self, visit: Visit) -> bool:
        with self._changed:
            strangers = sum(not one.is_let_in for one in self._visits)
            if strangers >= MAX_STRANGERS or len(self._visits) - strangers >= MAX_CLIENTS:
                return False
            self._visits.add(visit)
            return True

    def _receive(self, visit: Visit) -> None:
        try:
            with contextlib.suppress(OSError, ValueError, RecursionError):
                self._serve(visit)
        finally:
            self._gone(visit)

    def _gone(self, visit: Visit) -> None:
        visit.connection.close()
        with self._changed:
            self._visits.discard(visit)
            self._changed.notify_all()


def _turn_away(visit: Visit) -> None:
    with visit.connection, contextlib.suppress(OSError):
        visit.lines.write({"ok": False, "error": "too many connections"}, seconds=0.0)


def _keep_alive(connection: socket.socket) -> None:
    """A client whose machine is gone must not hold a host for ever; one that is there is answered at once."""
    if connection.family == socket.AF_UNIX:
        return
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, option):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def unix_listener(folder: Path) -> tuple[socket.socket, Path]:
    """A socket that only this user can open, in a new `folder`, and its address; raises OSError."""
    address = folder / "s"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(address))
        address.chmod(0o600)
        listener.listen(16)
    except OSError:
        listener.close()
        remove(address, folder)
        raise
    return listener, address


def private_folder(name: str) -> Path:
    """A new folder, mode 0700, whose path leaves room for a socket's name; OSError when there is none."""
    last: OSError | None = None
    for place in (os.environ.get("TMPDIR"), "/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108 - the folder in it is private
        if not place or len(os.fsencode(f"{place}/{name}/s")) > _MAX_PATH_BYTES:
            continue
        folder = Path(place, name)
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            last = error
        else:
            return folder
    raise last or OSError("no temporary folder with a short path; set TMPDIR to one")


def remove(*paths: Path) -> None:
    """Remove files and empty folders that are there."""
    for path in paths:
        with contextlib.suppress(OSError):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()
