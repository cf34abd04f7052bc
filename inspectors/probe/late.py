"""Entering a process that runs already: what `loadscope attach PID` has the main thread of that process do."""

from __future__ import annotations

import os
import sys
from typing import Any

from inspectors.probe import bootstrap


def enter(folder: str) -> dict[str, Any]:
    """Arm this process for the session in `folder`; says which session it records into, and what engines it has.

    `error` says why it stays as it was. A process that is armed already, such as a forked child, keeps its session and
    opens its door.
    """
    armed = _armed()
    if not armed:
        os.environ["LOADSCOPE_SESSION"] = folder
        bootstrap.arm()
        if not _armed():
            return {"error": bootstrap.refusals[-1] if bootstrap.refusals else "the probe did not start"}
    agent = sys.modules.get("inspectors.probe.agent")
    probe = agent.running_probe() if agent is not None else None
    if probe is None:
        return {"session": armed or folder, "engines": []}
    if not armed:
        probe.replace_everywhere()
    elif not probe.gate.is_open:
        probe.gate.serve()
    return {"session": str(probe.settings.folder), "engines": list(probe.found)}


def _armed() -> str:
    """The session that this process was armed for, "" for none."""
    found = (getattr(finder, "loadscope_session", None) for finder in sys.meta_path)
    return next((str(folder) for folder in found if folder), "")
