"""Whether the processes of a session still run: told from the process ids in the names of their streams."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sessions.session import Session


MIRROR = "mirror.json"
"""In a copy of a session of another machine: who copies it, and whether that goes on."""


def is_writer_alive(stream_file: Path) -> bool:
    """True while the process that a stream file is named after is there, and is no zombie.

    Process ids in a mirror are those of another machine: there it is the process that copies.
    """
    pid = _mirroring(stream_file.parent.parent / MIRROR)
    pid = stream_file.name.partition("-")[0] if pid is None else pid
    if not pid.isdigit() or int(pid) <= 0:
        return False
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    try:
        # A child that ended but was not waited for still has a process id.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return True


def _mirroring(note: Path) -> str | None:
    """The id of the process that keeps a mirror up to date, "" when none does, None for what is no mirror."""
    try:
        said = json.loads(note.read_text("utf-8"))
        return str(said["pid"]) if said["is_followed"] is True else ""
    except OSError:
        return None
    except (ValueError, KeyError, TypeError):
        return ""


def is_running(session: Session) -> bool:
    """True while a host can still write: no outcome is recorded and one of its processes lives."""
    outcome = session.manifest.outcome
    if outcome is not None and outcome.state != "running":
        return False
    return any(not stream.is_closed and is_writer_alive(stream.path) for stream in session.streams)


def has_no_recorded_end(session: Session) -> bool:
    """True when nobody wrote how the host ended: it still runs, or whoever watched it was stopped first."""
    outcome = session.manifest.outcome
    return outcome is None or outcome.state == "running"
