"""What this process has used so far, as its system and the host's own torch tell: memory, faults, CPU time, bytes read.

Nothing here starts anything: no device is made usable, no library imported that the host has not imported.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

UNKNOWN = -1
_STATUS, _IO = "/proc/self/status", "/proc/self/io"
_RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


class HostMemory(NamedTuple):
    """Bytes of the resident set: now, at its greatest, and those of mapped files; faults since the process began."""

    rss_bytes: int
    peak_rss_bytes: int
    file_bytes: int
    minor_faults: int
    major_faults: int


class DeviceMemory(NamedTuple):
    """Of the accelerator's allocator; the name is empty, and all else -1, where there is none in use."""

    device: str = ""
    allocated_bytes: int = UNKNOWN
    reserved_bytes: int = UNKNOWN
    peak_bytes: int = UNKNOWN


@dataclass(frozen=True)
class Spent:
    """CPU time of this thread and of the process, what was read from storage, faults and waits; all since the start."""

    thread_cpu_ns: int
    user_ns: int
    system_ns: int
    read_bytes: int
    minor_faults: int
    major_faults: int
    waits: int


def host_memory() -> HostMemory:
    """One look at the process, about 15 µs where there is /proc; elsewhere the peak stands for what it has now."""
    used = resource.getrusage(resource.RUSAGE_SELF) if resource is not None else None
    minor, major = (used.ru_minflt, used.ru_majflt) if used is not None else (UNKNOWN, UNKNOWN)
    told = _read(_STATUS)
    rss = _kilobytes(told, b"VmRSS:")
    if rss == UNKNOWN:
        peak = used.ru_maxrss * _RSS_UNIT_BYTES if used is not None else UNKNOWN
        return HostMemory(peak, peak, UNKNOWN, minor, major)
    # Not ru_maxrss: a child that was made by fork and exec begins with its parent's.
    return HostMemory(rss, _kilobytes(told, b"VmHWM:"), _kilobytes(told, b"RssFile:"), minor, major)


def device_memory(index: int | None) -> DeviceMemory:
    """What the accelerator's allocator holds, through the torch that the host imported; `index` None: the current."""
    torch: Any = sys.modules.get("torch")
    accelerator: Any = getattr(torch, "accelerator", None)
    device = accelerator.current_accelerator() if hasattr(accelerator, "current_accelerator") else None
    if device is None:
        return DeviceMemory()
    which = () if index is None else (index,)
    told: dict[str, int] = {}
    if hasattr(accelerator, "memory_stats") and device.type not in _refused:
        try:
            told = accelerator.memory_stats(*which)
        except RuntimeError:  # a backend whose allocator torch cannot ask
            _refused.add(device.type)
    if device.type in _refused:
        told = _told_by_backend(getattr(torch, device.type, None), which)
    if not told:  # nobody tells, or its allocator was not asked for anything yet
        return DeviceMemory()
    name = str(device.type) if index is None else f"{device.type}:{index}"
    return DeviceMemory(name, *(told.get(key, UNKNOWN) for key in _KEYS))


_KEYS = ("allocated_bytes.all.current", "reserved_bytes.all.current", "allocated_bytes.all.peak")
_ASKED = ("memory_allocated", "memory_reserved", "max_memory_allocated")
_refused: set[str] = set()


def _told_by_backend(module: Any, which: tuple[int, ...]) -> dict[str, int]:
    """The same three numbers from `torch.<backend>`, if it has them and the host uses it."""
    is_used = getattr(module, "is_initialized", None)
    asked = [getattr(module, name, None) for name in _ASKED]
    if is_used is None or None in asked or not is_used():
        return {}
    return {key: int(ask(*which)) for key, ask in zip(_KEYS, asked, strict=True) if ask is not None}


def device_index() -> int | None:
    """The device this thread has chosen; None where no device is in use."""
    if not device_memory(None).device:
        return None
    return int(sys.modules["torch"].accelerator.current_device_index())


def spent(*, with_reads: bool = True) -> Spent:
    """What the calling thread and its process have used so far; -1 where nobody counts."""
    used = resource.getrusage(resource.RUSAGE_SELF) if resource is not None else None
    return Spent(
        thread_cpu_ns=time.thread_time_ns(),
        user_ns=int(used.ru_utime * 1e9) if used is not None else UNKNOWN,
        system_ns=int(used.ru_stime * 1e9) if used is not None else UNKNOWN,
        read_bytes=_number(_read(_IO), b"\nread_bytes:") if with_reads else UNKNOWN,
        minor_faults=used.ru_minflt if used is not None else UNKNOWN,
        major_faults=used.ru_majflt if used is not None else UNKNOWN,
        waits=used.ru_nvcsw if used is not None else UNKNOWN,
    )


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a Path costs as much as the read
            return file.read(4096)
    except OSError:
        return b""


def _number(told: bytes, label: bytes) -> int:
    _, found, rest = told.partition(label)
    words = rest.split(None, 1)
    return int(words[0]) if found and words and words[0].isdigit() else UNKNOWN


def _kilobytes(told: bytes, label: bytes) -> int:
    number = _number(told, label)
    return UNKNOWN if number == UNKNOWN else number * 1024
