"""How long a device worked for each launch, by the profiler of the host's own torch, which is left to the host."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterable
from typing import Any

_PREFIX = "loadscope launch "
_lock = threading.Lock()
"""Held by the one profile of this process."""


def device_activity() -> Any:
    """The profiler's activity of the accelerator that the host's torch uses; None where there is none.

    torch is asked, whatever the accelerator is; one that came as a plugin has the activity of all such.
    """
    torch = sys.modules.get("torch")
    accelerator = getattr(torch, "accelerator", None)
    if torch is None or accelerator is None or not accelerator.is_available():
        return None
    device = accelerator.current_accelerator()
    activities = torch.profiler.ProfilerActivity
    return getattr(activities, device.type.upper(), None) or getattr(activities, "PrivateUse1", None)


def why_not() -> str:
    """Why no profile can begin now, "" if one can: there is one profiler in a process, and the host goes first."""
    profiler = sys.modules.get("torch.autograd.profiler")
    if profiler is None:
        return "torch has no profiler here"
    is_hosts = getattr(profiler, "_is_profiler_enabled", False) or sys.modules["torch"].autograd._profiler_enabled()  # noqa: SLF001 - the only way to ask
    return "a profiler of the host is running" if is_hosts and not _lock.locked() else ""


class DeviceProfile:
    """The profile of one forward pass. Each launch runs inside `launch`; `finish` tells their device times."""

    def __init__(self, activities: Iterable[Any]) -> None:
        self._profile = sys.modules["torch"].profiler.profile(activities=list(dict.fromkeys(activities)))

    @classmethod
    def begun(cls, activities: Iterable[Any]) -> DeviceProfile | None:
        """A profile that runs; None while another thread of ours has one."""
        if not _lock.acquire(blocking=False):
            return None
        try:
            made = cls(activities)
            made._profile.start()
        except BaseException:
            _lock.release()
            raise
        return made

    def launch(self, key: int) -> contextlib.AbstractContextManager[Any]:
        """The block in which launch number `key` runs."""
        fast = getattr(getattr(sys.modules["torch._C"], "_profiler", None), "_RecordFunctionFast", None)
        make = fast or sys.modules["torch"].profiler.record_function
        block: contextlib.AbstractContextManager[Any] = make(f"{_PREFIX}{key}")
        return block

    def finish(self) -> dict[int, int]:
        """End the profile; device time in ns by launch number, of those that gave the device work."""
        try:
            self._profile.stop()
            return device_times(self._profile.events() or ())
        finally:
            _lock.release()


def device_times(events: Iterable[Any]) -> dict[int, int]:
    """Of the profiler's events (`name`, `device_time_total` in µs): ns by launch number.

    The total holds everything launched inside the block, so that of an operator holds that of its Triton kernels.
    """
    found: dict[int, int] = {}
    for event in events:
        if event.name.startswith(_PREFIX) and event.name[len(_PREFIX) :].isdigit():
            key = int(event.name[len(_PREFIX) :])
            # Before torch 2.4 it was called after the one device there was.
            time_us = float(event.device_time_total if hasattr(event, "device_time_total") else event.cuda_time_total)
            # A device's own copy of the block is the span from its first to its last kernel, gaps included.
            if time_us > 0 and not _is_of_device(event):
                found[key] = round(time_us * 1000)
    return found


def _is_of_device(event: Any) -> bool:
    kind = getattr(event, "device_type", None)
    return kind is not None and getattr(kind, "name", "CPU") != "CPU"
