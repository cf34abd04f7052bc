"""Keeps what the host printed: raw in host.log, and when each line began in host.log.times."""

from __future__ import annotations

import os
import sys
import threading
import time
from io import BufferedIOBase
from pathlib import Path
from typing import IO, BinaryIO

CHUNK_BYTES = 65_536


class HostLog(threading.Thread):
    """Copies the host's output to the session, and to `echo` when given, until the pipe closes.

    A disk that fails ends the copy, never the reading: a host must not block on a full pipe.
    """

    def __init__(self, folder: Path, pipe: IO[bytes], echo: BinaryIO | BufferedIOBase | None) -> None:
        super().__init__(name="loadscope-host-log", daemon=True)
        self._pipe, self._echo = pipe, echo
        self._log = (folder / "host.log").open("wb", buffering=0)
        self._times = (folder / "host.log.times").open("w", encoding="ascii", buffering=1)
        self._offset = 0
        self._is_at_line_start = True

    def run(self) -> None:
        """Read until the last writer of the pipe has gone."""
        is_kept = True
        while chunk := os.read(self._pipe.fileno(), CHUNK_BYTES):
            if is_kept:
                is_kept = self._keep(chunk)
            self._repeat(chunk)
        self._log.close()
        self._times.close()

    def finish(self, patience_s: float) -> None:
        """Wait for the rest of the output; a grandchild that keeps the pipe open is not waited for."""
        self.join(patience_s)

    def _keep(self, chunk: bytes) -> bool:
        now = time.monotonic_ns()
        try:
            self._log.write(chunk)
            for start in self._line_starts(chunk):
                self._times.write(f"{now} {start}\n")
        except OSError as error:
            print(f"loadscope: the host's log ends here, the host goes on: {error}", file=sys.stderr)
            return False
        return True

    def _line_starts(self, chunk: bytes) -> list[int]:
        starts = [self._offset] if self._is_at_line_start else []
        at = chunk.find(b"\n")
        while 0 <= at < len(chunk) - 1:
            starts.append(self._offset + at + 1)
            at = chunk.find(b"\n", at + 1)
        self._is_at_line_start = chunk.endswith(b"\n")
        self._offset += len(chunk)
        return starts

    def _repeat(self, chunk: bytes) -> None:
        if self._echo is None:
            return
        try:
            self._echo.write(chunk)
            self._echo.flush()
        except (OSError, ValueError):
            self._echo = None  # nobody reads our standard error any more; the session still keeps everything
