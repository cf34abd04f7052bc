"""Runs the host of a replay to its end, says how far it is, and stops it when its time is over."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sessions.errors import SessionError
from sessions.session import Session
from workbench.errors import INCOMPLETE, UserError
from workbench.host import Host

Progress = Callable[[int, int], None]
GLANCE_S = 0.2


def run(host: Host, total: int, progress: Progress | None = None, timeout_s: float | None = None) -> None:
    """Start the host and wait for its end; `progress` is told events so far and `total`.

    Raises UserError (exit 5) when it was interrupted or its time was over; how it ended otherwise is compared later.
    """
    over = threading.Event()
    is_late = threading.Event()

    def watch() -> None:
        began, session = time.monotonic(), None
        while not over.wait(GLANCE_S):
            if timeout_s is not None and time.monotonic() - began > timeout_s and not is_late.is_set():
                is_late.set()
                host.interrupt()
            if progress is not None:
                session = session or _opened(host.folder)
                if session is not None:
                    session.refresh()
                    progress(len(session), total)
        if session is not None:
            session.close()

    host.start()
    watching = threading.Thread(target=watch, name="loadscope-replay", daemon=True)
    watching.start()
    try:
        outcome = host.wait()
    finally:
        over.set()
        watching.join()
    if is_late.is_set():
        raise UserError(
            f"the replay had not ended after {timeout_s:g} s and was interrupted",
            f"give it more time with --timeout; what it did is in {host.folder}",
            INCOMPLETE,
        )
    if outcome.state == "interrupted":
        raise UserError(
            "the replay was interrupted", f"what it did until then: loadscope open {host.folder}", INCOMPLETE
        )


def _opened(folder: Path) -> Session | None:
    """The session as soon as there is one."""
    try:
        session = Session.open(folder)
    except SessionError:
        return None
    if session.streams:
        return session
    session.close()
    return None


@contextmanager
def bar(what: str, *, is_quiet: bool) -> Iterator[Progress | None]:
    """A bar on standard error; where that is no terminal, nothing."""
    if is_quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("events"))
    with Bar(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=max(done, total))
