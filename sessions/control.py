"""The client of a host's control channel: pause, step, breakpoints and the tensor at hand."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

_CONNECT_SECONDS = 5.0
_REPLY_SECONDS = 60.0


class ControlError(Exception):
    """The host answered that it cannot do what was asked, or is gone; `is_gone` says which."""

    def __init__(self, text: str, *, is_gone: bool = False) -> None:
        super().__init__(text)
        self.is_gone = is_gone


class Control:
    """One connection to one host process. A host whose last connection closes is let go."""

    _GREETING: ClassVar[dict[str, object]] = {}

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self._connection, self.pid = connection, pid
        self._lines = connection.makefile("rwb")

    @classmethod
    def connect(cls, session_folder: str | Path) -> Control | None:
        """The first host of the session that answers; None when none does (not started yet, or ended)."""
        for note in sorted((Path(session_folder) / "control").glob("*.json")):
            found = cls._connect(note)
            if found is not None:
                return found
        return None

    @classmethod
    def connect_all(cls, session_folder: str | Path) -> list[Control]:
        """Every host process of the session that answers."""
        notes = sorted((Path(session_folder) / "control").glob("*.json"))
        return [found for note in notes if (found := cls._connect(note)) is not None]

    @classmethod
    def _connect(cls, note: Path) -> Control | None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_CONNECT_SECONDS)
        try:
            said = json.loads(note.read_text("utf-8"))
            connection.connect(str(said["address"]))
            control = cls(connection, int(said["pid"]))
            control._ask({"token": str(said["token"]), **cls._GREETING})
        except (OSError, ValueError, KeyError, TypeError, ControlError):
            connection.close()
            return None
        return control

    def state(self) -> dict[str, Any]:
        """`state` ("running", "paused" or "ended"), `seq`, `why` and `breakpoint`."""
        return self._ask({"do": "state"})

    def wait(self, seconds: float) -> dict[str, Any]:
        """The state as soon as the host is paused or ended, at the latest after `seconds`."""
        return self._ask({"do": "wait", "seconds": seconds}, seconds)

    def run(self, until: str) -> None:
        """Go on until "next", "any", "out", "parameter", "layer" or "breakpoint"."""
        self._ask({"do": "run", "until": until})

    def breakpoints(self, conditions: list[str]) -> None:
        """Replace the breakpoints; ControlError names the one that cannot be read."""
        self._ask({"do": "breakpoints", "set": conditions})

    def inspect(
        self, what: str = "source", *, row: int = 0, column: int = 0, rows: int = 8, columns: int = 8
    ) -> dict[str, Any]:
        """The tensor at hand ("source" or "parameter"): name, dtype, shape, statistics, histogram, window of values."""
        asked = {"do": "inspect", "what": what, "row": row, "column": column, "rows": rows, "columns": columns}
        return self._ask(asked)

    def stacks(self) -> list[tuple[str, list[str]]]:
        """The name of each host thread and what it does, `file:line function`, innermost first."""
        threads = self._ask({"do": "stacks"}).get("threads", [])
        return [(str(one.get("name")), [str(line) for line in one.get("frames", ())]) for one in threads]

    def pause(self) -> None:
        """Hold the host at its next event."""
        self._ask({"do": "pause"})

    def release(self) -> None:
        """Let the host go, without further pauses."""
        self._ask({"do": "release"})

    def close(self) -> None:
        """Leave; the host is let go when nobody else is connected."""
        try:
            self._lines.close()
        except OSError:
            self._connection.close()  # the host went first
        self._connection.close()

    def __enter__(self) -> Control:  # noqa: PYI034 - `Self` is of Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: dict[str, Any], seconds: float = 0.0) -> dict[str, Any]:
        try:
            self._connection.settimeout(_REPLY_SECONDS + seconds)
            self._lines.write(json.dumps(request).encode() + b"\n")
            self._lines.flush()
            line = self._lines.readline()
        except (OSError, ValueError) as error:
            raise ControlError(f"the host (pid {self.pid}) is gone: {error}", is_gone=True) from error
        if not line:
            raise ControlError(f"the host (pid {self.pid}) is gone", is_gone=True)
        try:
            reply = json.loads(line)
        except ValueError as error:
            raise ControlError(f"the host (pid {self.pid}) sent something that is no reply") from error
        if not isinstance(reply, dict) or not reply.get("ok"):
            raise ControlError(str(reply.get("error", "refused")) if isinstance(reply, dict) else "refused")
        return reply
