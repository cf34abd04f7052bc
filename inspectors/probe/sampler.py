"""A thread that looks at the process's memory every few milliseconds while an engine is at work, and then ends."""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

from inspectors.probe.events import NO_RANK, MemorySampled
from inspectors.probe.stages import includes
from inspectors.probe.usage import DeviceMemory, HostMemory, device_index, device_memory, host_memory

if TYPE_CHECKING:
    from inspectors.probe.agent import Probe
    from inspectors.probe.inspector import Inspector

INTERVAL_S = 0.02
THRIFTY_INTERVAL_S = 0.05
"""At level `calls`, where a load must take hardly longer than without us."""
REST_S = 1.0
"""So long after the last stage the thread goes on: engines build their model between two stages."""

Look = tuple[HostMemory, DeviceMemory]


class Sampler:
    """Takes samples when asked, and by its own clock between `opened` and `closed`. Safe from several threads.

    A forked child begins with no thread; its next stage starts one.
    """

    def __init__(self, probe: Probe, inspector: Inspector) -> None:
        self._probe, self._recorder, self._inspector = probe, probe.recorder, inspector
        self._interval_s = INTERVAL_S if includes(probe.level, "ledger") else THRIFTY_INTERVAL_S
        self._start_afresh()
        itself = weakref.ref(self)

        def after_fork() -> None:
            sampler = itself()
            if sampler is not None:
                sampler._start_afresh()  # noqa: SLF001 - its own

        os.register_at_fork(after_in_child=after_fork)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._open, self._last_ns = 0, 0
        self._device: int | None = None
        self._seen: Look | None = None
        self._held: tuple[int, Look] | None = None

    @property
    def age_ns(self) -> int:
        """How long ago the last sample was taken."""
        return time.monotonic_ns() - self._last_ns

    def opened(self) -> None:
        """A stage begins: see to it that the thread runs."""
        with self._lock:
            self._open += 1
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._run, name="loadscope-memory", daemon=True)
            thread = self._thread
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending, or the host may make no more threads
            self._thread = None

    def closed(self) -> None:
        """A stage has ended."""
        with self._lock:
            self._open = max(0, self._open - 1)

    def take(self, cause: str, stage: str, rank: int) -> None:
        """Record what is used now, whatever it is."""
        if self._device is None:
            self._device = device_index()
        self._record((host_memory(), device_memory(self._device)), cause, stage, rank, 0)

    def _record(self, look: Look, cause: str, stage: str, rank: int, t_ns: int) -> None:
        host, device = look
        body = MemorySampled(
            cause, host.rss_bytes, host.peak_rss_bytes, host.minor_faults, host.major_faults,
            device.device, device.allocated_bytes, device.reserved_bytes, device.peak_bytes, host.file_bytes,
        )  # fmt: skip
        self._seen, self._held, self._last_ns = look, None, time.monotonic_ns()
        if t_ns:
            self._recorder.measured(body, rank, t_ns, 0)
        else:
            self._recorder.point(body, rank, stage)

    def _run(self) -> None:
        me = threading.current_thread()
        while self._thread is me:
            time.sleep(self._interval_s)
            with self._probe.guarded(self._inspector):
                self._look()
            with self._lock:
                is_idle = not self._open and self.age_ns > REST_S * 1e9
                if self._thread is me and (is_idle or not self._probe.has(self._inspector)):
                    self._thread = None

    def _look(self) -> None:
        """One look by the clock; a process that stands still is not written down again and again."""
        now, look = time.monotonic_ns(), (host_memory(), device_memory(self._device))
        if look == self._seen:
            self._held = (now, look)
            return
        held = self._held
        if held is not None:
            self._record(held[1], "clock", "", NO_RANK, held[0])  # the last moment before something changed
        self._record(look, "clock", "", NO_RANK, 0)
