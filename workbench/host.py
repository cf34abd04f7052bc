"""Runs a host process with the probe armed: its session, its log, its signals and its outcome."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sessions.manifest import Manifest, Outcome, timestamp
from workbench import arming
from workbench.errors import HOST_FAILED, UserError
from workbench.hostlog import HostLog
from workbench.stacks import write_stacks

INTERRUPT_PATIENCE_S = 10.0
TERMINATE_PATIENCE_S = 5.0
DRAIN_S = 2.0


class Host:
    """One host process of one session folder.

    `start` writes the manifest and starts it, `wait` returns its outcome after writing that into the manifest.
    It runs in `working_folder`, by default the workbench's own, and leads a process group of its own. `interrupt` asks
    it to end, first with SIGINT, then harder.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, *, echoes_log: bool = False, timeout_s: float | None = None
    ) -> None:
        self.folder, self.manifest, self._timeout_s = folder, manifest, timeout_s
        self.working_folder: Path | None = None
        self._echoes_log = echoes_log
        self._process: subprocess.Popen[bytes] | None = None
        self._log: HostLog | None = None
        self._started_s = 0.0
        self._asked: list[float] = []
        self._is_late = False

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Write the manifest and start the host; raises UserError (exit 4) when its command cannot be run."""
        self._write_manifest(Outcome(state="running"))
        armed = arming.environment(self.folder, self.manifest.level, self.manifest.command)
        env = {**os.environ, **(environment or {}), **armed}
        self._started_s = time.monotonic()
        try:
            self._process = subprocess.Popen(
                self.manifest.command,
                env=env,
                cwd=self.working_folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            self._write_manifest(Outcome(state="failed", exit_code=127, ended=timestamp(), duration_s=0.0))
            command = self.manifest.command[0]
            raise UserError(
                f"the host cannot be started: {command}: {error.strerror}", "check the command after --", HOST_FAILED
            ) from error
        if self._process.stdout is None:
            raise UserError("the host was started without an output pipe", "report it", HOST_FAILED)
        self._log = HostLog(self.folder, self._process.stdout, sys.stderr.buffer if self._echoes_log else None)
        self._log.start()

    def wait(self) -> Outcome:
        """Wait for the end of the host, forwarding Ctrl-C and SIGTERM to it; returns what became of it."""
        process = self._running()
        with self._forwarded_signals():
            while True:
                try:
                    code = process.wait(timeout=0.2)
                    break
                except subprocess.TimeoutExpired:
                    self._insist()
                    self._mind_the_time()
        if self._log is not None:
            self._log.finish(DRAIN_S)
        outcome = self._outcome(code)
        self._write_manifest(outcome)
        return outcome

    def is_running(self) -> bool:
        """Whether the host process is there."""
        return self._process is not None and self._process.poll() is None

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """Ask the host to end: `number` the first time, SIGTERM the second, SIGKILL from then on."""
        self._asked.append(time.monotonic())
        self._send([number, signal.SIGTERM, signal.SIGKILL][min(len(self._asked), 3) - 1])

    def _insist(self) -> None:
        patience_s = INTERRUPT_PATIENCE_S if len(self._asked) == 1 else TERMINATE_PATIENCE_S
        if self._asked and time.monotonic() - self._asked[-1] > patience_s:
            self.interrupt()

    def _mind_the_time(self) -> None:
        """A host that takes longer than it may: keep what it was doing, then end it."""
        limit = self._timeout_s
        if limit is not None and not self._is_late and time.monotonic() - self._started_s > limit:
            self._is_late = True
            write_stacks(self.folder, self._running().pid, f"the host did not end within {limit:g} s")
            self.interrupt(signal.SIGTERM)

    def _send(self, number: int) -> None:
        try:
            os.killpg(self._running().pid, number)
        except ProcessLookupError:
            return

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise UserError("the host was not started", "report it", HOST_FAILED)
        return self._process

    @contextmanager
    def _forwarded_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, lambda received, _frame: self.interrupt(received))
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _outcome(self, code: int) -> Outcome:
        state = "ok" if code == 0 else "killed" if code < 0 else "failed"
        if self._asked:
            state = "killed" if self._is_late else "interrupted"
        return Outcome(
            state=state,
            exit_code=code if code >= 0 else None,
            signal=signal.Signals(-code).name if code < 0 else None,
            ended=timestamp(),
            duration_s=round(time.monotonic() - self._started_s, 3),
            extra={"timed_out_after_s": self._timeout_s} if self._is_late else {},
        )

    def _write_manifest(self, outcome: Outcome) -> None:
        self.manifest = dataclasses.replace(self.manifest, outcome=outcome)
        try:
            self.manifest.write(self.folder)
        except OSError as error:
            raise UserError(
                f"the session's manifest cannot be written to {self.folder}: {error.strerror or error}",
                "free some space or name another folder with -o DIR; what was recorded stays readable",
            ) from error
