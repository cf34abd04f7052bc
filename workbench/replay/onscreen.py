"""Replays that are asked for on the screens: run in a thread there, and ended when the screens close."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from sessions.alignment import align
from sessions.session import Session
from workbench.host import Host
from workbench.replay.again import Asked, again
from workbench.replay.running import run
from workbench.replay.told import Side, lines
from workbench.tui.launching import Replayed


class Replays:
    """Does loads again, one at a time; `end` interrupts the one that still runs."""

    def __init__(self) -> None:
        self._host: Host | None = None

    def replay(self, session: Path, progress: Callable[[int, int], None]) -> Replayed:
        """The verdict of one replay; its session is kept when something differs. Raises UserError."""
        recorded = Session.open(session)
        try:
            made = again(recorded, Asked())
            self._host = made.host
            run(made.host, len(recorded), progress)
            replayed = Session.open(made.host.folder)
            try:
                found = align(recorded, replayed)
                told = lines(found, made.notes, Side())
            finally:
                replayed.close()
        finally:
            recorded.close()
        if found.is_alike:
            shutil.rmtree(made.host.folder, ignore_errors=True)
            return Replayed(tuple(told))
        first = found.differences[0] if found.differences else None
        position = None if first is None else max(0, first.first if first.first >= 0 else first.before[0])
        return Replayed((*told, f"session   {made.host.folder}"), position)

    def end(self) -> None:
        """Interrupt the host that still runs; its thread ends by itself."""
        if self._host is not None and self._host.is_running():
            self._host.interrupt()
