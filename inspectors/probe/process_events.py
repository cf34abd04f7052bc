"""The events of a process: what armed itself, what was found, what went wrong, what it held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from inspectors.probe.body import Body


@dataclass(frozen=True)
class ProcessStarted(Body):
    """A host process armed itself; the first event of its stream."""

    kind: ClassVar[str] = "process.started"
    pid: int = 0
    parent_pid: int = 0
    argv: tuple[str, ...] = ()
    python: str = ""
    level: str = ""


@dataclass(frozen=True)
class EngineFound(Body):
    """An engine's module was imported and its tracepoints were set."""

    kind: ClassVar[str] = "engine.found"
    engine: str = ""
    version: str = ""
    module_file: str = ""


@dataclass(frozen=True)
class RankJoined(Body):
    """The first model code of a rank: `tp` is the size of its tensor-parallel group, as the engine says it."""

    kind: ClassVar[str] = "rank.joined"
    engine: str = ""
    tp: int = 0


@dataclass(frozen=True)
class TracepointMissing(Body):
    """A tracepoint of a known engine did not resolve: what it would have seen is not in this session."""

    kind: ClassVar[str] = "tracepoint.missing"
    engine: str = ""
    target: str = ""
    wanted_stage: str = ""
    reason: str = ""


@dataclass(frozen=True)
class InspectorFaulted(Body):
    """An inspector raised and was disabled; the host went on untouched."""

    kind: ClassVar[str] = "inspector.faulted"
    inspector: str = ""
    error: str = ""
    where: str = ""


@dataclass(frozen=True)
class RecordingCapped(Body):
    """A limit on events or size was reached; later events are counted, not kept."""

    kind: ClassVar[str] = "recording.capped"
    limit: str = ""
    value: int = 0


@dataclass(frozen=True)
class StageFailed(Body):
    """A host exception passed through a tracepoint, unchanged. Recorded once, at the innermost tracepoint.

    `call` is the seq of the span it left, `frames` are `file:line function`, innermost first.
    """

    kind: ClassVar[str] = "stage.failed"
    error: str = ""
    message: str = ""
    where: str = ""
    frames: tuple[str, ...] = ()
    module: str = ""
    parameter: str = ""
    checkpoint_name: str = ""
    call: int = 0
    failed_stage: str = ""


@dataclass(frozen=True)
class MemorySampled(Body):
    """Memory of the process at one moment. `cause` is "stage", "call" or "clock" (a sample between events).

    Bytes are of the host's resident set, and of the device's allocator where it has one (-1: it has none); faults are
    counted since the process began. `file_bytes` of the resident set are pages of files, such as a mapped checkpoint,
    which the system takes back when it needs them.
    """

    kind: ClassVar[str] = "memory.sampled"
    cause: str = ""
    rss_bytes: int = 0
    peak_rss_bytes: int = 0
    minor_faults: int = 0
    major_faults: int = 0
    device: str = ""
    device_allocated_bytes: int = -1
    device_reserved_bytes: int = -1
    device_peak_bytes: int = -1
    file_bytes: int = -1


@dataclass(frozen=True)
class StageTimed(Body):
    """What one call of a stage used besides its time (span, told when it is over): differences, -1 where unknown.

    `thread_cpu_ns` is of the calling thread alone; the rest is of the whole process, other ranks' threads included.
    `read_bytes` came from storage; `waits` is how often a thread gave up the processor by itself.
    """

    kind: ClassVar[str] = "stage.timed"
    of_stage: str = ""
    thread_cpu_ns: int = -1
    user_ns: int = -1
    system_ns: int = -1
    read_bytes: int = -1
    minor_faults: int = -1
    major_faults: int = -1
    waits: int = -1
