"""The channel to the hosts that can be paused: one thread that connects, asks and waits, so that no key ever does."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from textual.message import Message

from sessions.control import ControlError
from sessions.together import Together
from workbench.tui.frame import Host
from workbench.tui.messages import HostStateChanged

CONNECT_SECONDS = 0.5
WAIT_SECONDS = 0.2


class HostControl(Protocol):
    """The client of one host's control channel, or of all hosts of a session as one."""

    @property
    def pid(self) -> int:
        """The process of the host that is shown."""

    def state(self) -> Mapping[str, Any]:
        """`state` ("running", "paused", "ended"), `seq`, `why`, `breakpoint`; of several hosts also `pid`, `ranks`."""

    def wait(self, seconds: float) -> Mapping[str, Any]:
        """The state as soon as it is paused or ended, or when the time is over."""

    def run(self, until: str) -> Any:
        """Let it go on until the next place of that sort."""

    def breakpoints(self, conditions: list[str]) -> Any:
        """Replace the breakpoints."""

    def inspect(
        self, what: str = "source", *, row: int = 0, column: int = 0, rows: int = 8, columns: int = 8
    ) -> Mapping[str, Any]:
        """A window of the tensor at hand with its statistics."""

    def pause(self) -> Any:
        """Hold it at its next event."""

    def release(self) -> Any:
        """Let it go for good."""

    def show(self, rank: int) -> bool:
        """From now on answer for this rank; False when there is none such."""

    def close(self) -> None:
        """Leave; a host that waits goes on."""


Connect = Callable[[Path], "HostControl | None"]
Job = Callable[[HostControl], object]
Answer = Callable[[object], None]


class Controlling:
    """Owns the control connections. `host` is the last state known; every change is posted as HostStateChanged."""

    connect: Connect = staticmethod(Together.connect)

    def __init__(self, path: Path, post: Callable[[Message], object]) -> None:
        self.path, self._post = path, post
        self.host = Host()
        self.error = ""
        self._jobs: queue.Queue[tuple[Job, Answer | None]] = queue.Queue()
        self._is_stopped = threading.Event()
        self._changes = self._pid = 0
        self._breakpoints: list[str] = []
        self._was_paused_at: tuple[int, int] | None = None
        self._thread = threading.Thread(target=self._run, name="loadscope-control", daemon=True)

    def start(self) -> None:
        """Begin to look for a host."""
        self._thread.start()

    def stop(self) -> None:
        """Leave the host; one that waits goes on."""
        self._is_stopped.set()
        self._jobs.put((lambda _control: None, None))
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def ask(self, job: Job, answer: Answer | None = None) -> None:
        """Do something with the host in the thread; `answer` is called there with what it returned."""
        self._jobs.put((job, answer))

    def run(self, until: str) -> None:
        """Let the host go on; the screen shows it as running at once."""
        self._set(Host("running", is_busy=True, at=self.host.at, pid=self._pid, ranks=self.host.ranks))
        self.ask(lambda control: control.run(until))

    def break_at(self, conditions: list[str], answer: Answer) -> None:
        """Replace the breakpoints of the hosts, and of those that come."""
        self._breakpoints = conditions
        if self.host.state in {"paused", "running"}:
            self.ask(lambda control: control.breakpoints(conditions), answer)

    def has_just_paused(self) -> bool:
        """True once for every place at which the shown host pauses."""
        was, host = self._was_paused_at, self.host
        self._was_paused_at = (host.pid, host.at) if host.is_paused else None
        return self._was_paused_at is not None and self._was_paused_at != was

    def _run(self) -> None:
        control = None
        while not self._is_stopped.is_set():
            if control is None:
                control = self._connected()
                if control is None:
                    if self._is_stopped.wait(CONNECT_SECONDS):
                        return
                    continue
            if not self._serve(control):
                control.close()
                control = None  # another host may come: ranks that load one after the other
                if self._is_stopped.wait(CONNECT_SECONDS):
                    return
        if control is not None:
            control.close()

    def _connected(self) -> HostControl | None:
        try:
            control = self.connect(self.path)
            if control is not None:
                if self._breakpoints:
                    control.breakpoints(self._breakpoints)
                self._take(control, control.state())
        except (ControlError, OSError) as error:
            self.error = str(error)
            return None
        return control

    def _serve(self, control: HostControl) -> bool:
        try:
            self._work(control)
            self._take(control, control.state() if self.host.is_paused else control.wait(WAIT_SECONDS))
        except (ControlError, OSError) as error:
            self.error = str(error)
            self._set(Host("gone", at=self.host.at))
            return False
        return self.host.state != "gone"

    def _work(self, control: HostControl) -> None:
        """Jobs that are there; while the host waits for a key, wait for a job."""
        while True:
            try:
                job, answer = self._jobs.get(timeout=WAIT_SECONDS) if self.host.is_paused else self._jobs.get_nowait()
            except queue.Empty:
                return
            try:
                result: object = job(control)
            except ControlError as error:
                if error.is_gone:
                    raise
                result = error
            if answer is not None:
                answer(result)

    def _take(self, control: HostControl, told: Mapping[str, Any]) -> None:
        state = str(told.get("state"))
        is_busy = state == "running" and self.host.is_busy
        why, text = str(told.get("why") or ""), str(told.get("breakpoint") or "")
        at, self._pid = int(told.get("seq") or 0), control.pid
        ranks = tuple(told.get("ranks", ()))
        self._set(Host("gone" if state == "ended" else state, why, text, at, self._pid, is_busy, ranks))

    def _set(self, host: Host) -> None:
        if host != self.host:
            self.host = host
            self._changes += 1
            self._post(HostStateChanged(self._changes))
