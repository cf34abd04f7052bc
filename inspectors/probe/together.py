"""What a host tells and is told when it is one of several ranks that are stepped together."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspectors.probe.gate import Gate

MARK = Path("control", "stepped")
"""In the session folder while somebody steps its hosts: the id of that process. New hosts wait at their start."""
_MEETING_PLACES = ("torch/distributed/", "distributed/device_communicators/")
_MAX_FRAMES = 200


def is_stepped(session: Path) -> bool:
    """True while a process that steps the session's hosts is there."""
    try:
        os.kill(int((session / MARK).read_text("ascii")), 0)
    except PermissionError:
        return True  # somebody else's process, and there
    except (OSError, ValueError):
        return False
    return True


def only_looks(greeting: bytes) -> bool:
    """True for somebody who has come to look: that he comes and leaves changes nothing for the host."""
    return json.loads(greeting).get("only_looks") is True


def has_left(gate: Gate, asked: dict[str, Any]) -> dict[str, Any]:
    """Whether this rank is past the loader call `call`, told by another one."""
    last = gate.places.last
    return {"has_left": last is not None and gate.places.has_left(asked["call"], last.rank)}


def hold_at(gate: Gate, asked: dict[str, Any]) -> dict[str, Any]:
    """Hold at the `number`-th loader call."""
    gate.hold_at(int(asked["number"]))
    return {}


def whereabouts(gate: Gate, asked: dict[str, Any]) -> dict[str, Any]:
    """`collective`: the function of torch.distributed in which a thread waits, or ""; `timeouts` of its groups."""
    del gate, asked
    return {"collective": _collective(), "timeouts": _timeouts()}


def _collective() -> str:
    ours = {thread.ident for thread in threading.enumerate() if thread.name.startswith("loadscope-")}
    for ident, innermost in sys._current_frames().items():  # noqa: SLF001 - the documented way, for all its name
        if ident in ours:
            continue
        # The frames run outwards: the outermost one there is what the engine called.
        called = [frame.f_code.co_name for frame in _frames(innermost) if _is_meeting(frame)]
        if called:
            return next((name for name in reversed(called) if name != "wrapper"), called[-1])
    return ""


def _frames(innermost: FrameType) -> Iterator[FrameType]:
    frame: FrameType | None = innermost
    for _ in range(_MAX_FRAMES):
        if frame is None:
            return
        yield frame
        frame = frame.f_back


def _is_meeting(frame: FrameType) -> bool:
    return any(place in frame.f_code.co_filename for place in _MEETING_PLACES)


def _timeouts() -> dict[str, float]:
    """Seconds after which a collective gives up, the least of each backend; {} where there are no groups."""
    found: dict[str, float] = {}
    try:
        world = sys.modules["torch.distributed.distributed_c10d"]._world  # noqa: SLF001 - torch has no other word for it
        for group, (backend, _) in list(world.pg_map.items()):
            for device in group._device_types:  # noqa: SLF001 - see above
                seconds = group._get_backend(device).options._timeout.total_seconds()  # noqa: SLF001 - see above
                found[str(backend)] = min(seconds, found.get(str(backend), seconds))
    except Exception:
        return found  # no torch, no groups, or a backend without options: nothing is known of its time-outs
    return found


REQUESTS = {"has_left": has_left, "hold_at": hold_at, "whereabouts": whereabouts}
