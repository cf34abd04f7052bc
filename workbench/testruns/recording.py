"""One session for each test: begun before its fixtures, packed when it fails, removed when it is not wanted."""

from __future__ import annotations

import dataclasses
import re
import shutil
import sys
from pathlib import Path

from inspectors.probe import bootstrap
from inspectors.probe.agent import running_probe
from inspectors.probe.recorder import DEFAULT_MAX_EVENTS
from sessions.bundle.layout import SUFFIX
from sessions.bundle.packing import pack
from sessions.errors import SessionError
from sessions.manifest import Manifest, Outcome, timestamp
from sessions.session import Session
from workbench import launching, plugins
from workbench.failing import failing_call
from workbench.outcome import holds_observations

_NAME_LENGTH = 120


@dataclasses.dataclass(frozen=True)
class Kept:
    """A bundle of one test, and what it shows at first sight."""

    path: Path
    lines: tuple[str, ...]


class TestSessions:
    """The sessions of the tests of one process, below `folder`."""

    def __init__(self, folder: Path, level: str, adapters: tuple[str, ...], hold_s: float = 0.0) -> None:
        self._folder, self._level, self._hold_s = folder, level, hold_s
        self._engines = plugins.engine_modules((), adapters)
        self._session: Path | None = None
        self._old: list[Path] = []

    def begin(self, name: str) -> Path:
        """Record into a new session from here on; `name` is the test's node id."""
        self._session = folder = self._free(_plain(name))
        (folder / "streams").mkdir(parents=True)
        manifest = Manifest(
            id=folder.name,
            created=timestamp(),
            verb="pytest",
            command=tuple(sys.argv),
            level=self._level,
            engines=self._engines,
            inspectors=launching.inspector_modules(),
            name=name,
            max_events=DEFAULT_MAX_EVENTS,
            outcome=Outcome(),
            extra={"hold_seconds": self._hold_s} if self._hold_s else {},
        )
        manifest.write(folder)
        bootstrap.move_to(str(folder))
        bootstrap.arm()
        self._remove_old()
        return folder

    def keep(self, why: str, *, has_failed: bool) -> Kept | None:
        """Pack what the test has done so far; None when it used no engine."""
        folder = self._session
        if folder is None:
            return None
        probe = running_probe()
        if probe is not None:
            probe.recorder.flush()
        if not any((folder / "streams").glob("*.sqlite")):
            return None
        lines = _first_sight(folder)
        if lines is None:
            return None
        state = "failed" if has_failed else "ok"
        outcome = Outcome(state, 1 if has_failed else 0, ended=timestamp())
        dataclasses.replace(Manifest.read(folder), outcome=outcome).write(folder)
        target = self._folder / f"{folder.name}{SUFFIX}"
        pack(folder, target, why=why)
        return Kept(target, tuple(lines))

    def coverage(self) -> float | None:
        """The part of all parameter elements that the test's loads filled; None when nothing was loaded."""
        from sessions.summary import summary

        probe = running_probe()
        if self._session is None or probe is None:
            return None
        probe.recorder.flush()
        session = Session.open(self._session)
        try:
            totals = summary(session).coverage
        finally:
            session.close()
        return 1 - totals.never_written / totals.elements if totals is not None and totals.elements else None

    def end(self) -> None:
        """The test is over: its session is not needed any more, once nothing is written to it."""
        if self._session is not None:
            self._old.append(self._session)
            self._session = None

    def finish(self) -> None:
        """No more tests come."""
        probe = running_probe()
        if probe is not None:
            probe.recorder.close()
        self.end()
        self._remove_old()

    def _remove_old(self) -> None:
        for folder in self._old:
            shutil.rmtree(folder, ignore_errors=True)
        self._old.clear()

    def _free(self, stem: str) -> Path:
        folder, number = self._folder / stem, 1
        while folder.exists() or folder.with_name(f"{folder.name}{SUFFIX}").exists():
            number += 1
            folder = self._folder / f"{stem}-{number}"
        return folder


def _first_sight(folder: Path) -> list[str] | None:
    """The failing call of a session; None when no engine did anything in it."""
    try:
        session = Session.open(folder)
    except SessionError:
        return []
    try:
        failing = failing_call(session)
        told = failing.lines if failing is not None else []
        return told if holds_observations(session) else None
    finally:
        session.close()


def _plain(name: str) -> str:
    """`tests/test_load.py::test_tp[4]` → `test_load.py-test_tp-4`: a file's name on every system."""
    file, _, test = name.partition("::")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{file.rpartition('/')[2]}-{test}")[-_NAME_LENGTH:].strip("-.") or "test"
