"""The host's own output, line by line, with the monotonic time at which each line came."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

CHUNK_BYTES = 1 << 20
LINE_BYTES = 1 << 16


LOG, LOG_TIMES = "host.log", "host.log.times"


@dataclass(frozen=True)
class LogLine:
    """One line of the host's output; `t_ns` is None when no time was kept for it."""

    number: int
    t_ns: int | None
    text: str


class HostLog:
    """`host.log` and `host.log.times` of a session folder; both may be missing or still growing."""

    def __init__(self, folder: Path) -> None:
        self._log, self._times_file = folder / LOG, folder / LOG_TIMES
        self._starts = array("Q", [0])
        self._size = 0
        self._times = array("q")
        self._offsets = array("Q")
        self._times_read = 0
        self.refresh()

    def refresh(self) -> bool:
        """Read what was appended; True when there is more than before."""
        grew = self._read_lines()
        self._read_times()
        return grew

    def _read_lines(self) -> bool:
        try:
            with self._log.open("rb") as file:
                file.seek(self._size)
                before = self._size
                while chunk := file.read(CHUNK_BYTES):
                    at = -1
                    while (at := chunk.find(b"\n", at + 1)) >= 0:
                        self._starts.append(self._size + at + 1)
                    self._size += len(chunk)
        except OSError:
            return False
        return self._size > before

    def _read_times(self) -> None:
        try:
            with self._times_file.open("rb") as file:
                file.seek(self._times_read)
                data = file.read()
        except OSError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._times_read += len(whole)
        for line in whole.split(b"\n"):
            parts = line.split()
            if len(parts) == 2 and parts[0].isdigit() and parts[1].isdigit() and len(parts[0]) < 19 > len(parts[1]):
                self._times.append(int(parts[0]))
                self._offsets.append(int(parts[1]))

    def __len__(self) -> int:
        return len(self._starts) - (1 if self._starts[-1] == self._size else 0)

    def lines(self, start: int, stop: int) -> list[LogLine]:
        """Lines start..stop-1, numbered from 0; text longer than 64 KiB is cut."""
        numbers = range(max(start, 0), min(stop, len(self)))
        if not numbers:
            return []
        try:
            with self._log.open("rb") as file:
                return [self._line(file.seek(self._starts[n]), file.readline(LINE_BYTES), n) for n in numbers]
        except OSError:
            return []

    def _line(self, start: int, raw: bytes, number: int) -> LogLine:
        text = raw.decode("utf-8", errors="replace").rstrip("\r\n")
        return LogLine(number, self._time_of(start), text)

    def _time_of(self, offset: int) -> int | None:
        index = bisect_right(self._offsets, offset) - 1
        return self._times[index] if index >= 0 else None

    def line_at(self, t_ns: int) -> int:
        """The number of the last line that had come at `t_ns`, -1 for none."""
        index = bisect_right(self._times, t_ns) - 1
        if index < 0:
            return -1
        return min(bisect_right(self._starts, self._offsets[index]) - 1, len(self) - 1)
