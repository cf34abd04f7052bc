"""The client of a host's control channel: pause, step, breakpoints, the tensor at hand and the session's files."""

from __future__ import annotations

import ipaddress
import json
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

_CONNECT_SECONDS = 5.0
_REPLY_SECONDS = 60.0
_MAX_REPLY_BYTES = 8 << 20


class ControlError(Exception):
    """The host answered that it cannot do what was asked, or is gone; `is_gone` says which."""

    def __init__(self, text: str, *, is_gone: bool = False) -> None:
        super().__init__(text)
        self.is_gone = is_gone


class NotLetInError(ControlError):
    """Somebody listens there, and does not take the token."""


class Control:
    """One connection to one host process. A host whose last connection closes is let go."""

    _GREETING: ClassVar[dict[str, object]] = {}

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self._connection, self.pid = connection, pid
        self._lines = connection.makefile("rwb")

    @classmethod
    def connect(cls, session_folder: str | Path, pid: int | None = None) -> Control | None:
        """The first host of the session that answers, or the process `pid` alone; None when none does.

        It has not started yet then, or has ended.
        """
        notes = sorted((Path(session_folder) / "control").glob("*.json" if pid is None else f"{pid}.json"))
        return next((found for note in notes if (found := cls._connect(note)) is not None), None)

    @classmethod
    def connect_all(cls, session_folder: str | Path) -> list[Control]:
        """Every host process of the session that answers."""
        notes = sorted((Path(session_folder) / "control").glob("*.json"))
        return [found for note in notes if (found := cls._connect(note)) is not None]

    @classmethod
    def at(cls, host: str, port: int, token: str) -> Control:
        """The host that listens at this TCP address. OSError when nobody does, NotLetInError for a wrong token."""
        return cls._let_in(socket.create_connection((host, port), _CONNECT_SECONDS), token)

    @classmethod
    def _connect(cls, note: Path) -> Control | None:
        try:
            said = json.loads(note.read_text("utf-8"))
            token = str(said["token"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        for open_ in (_unix, _tcp):
            try:
                connection = open_(said)
                if connection is not None:
                    return cls._let_in(connection, token)
            except (OSError, ValueError, KeyError, TypeError, ControlError):  # noqa: PERF203 - two at most
                continue
        return None

    @classmethod
    def _let_in(cls, connection: socket.socket, token: str) -> Control:
        connection.settimeout(_CONNECT_SECONDS)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        control = cls(connection, 0)
        try:
            reply = control.ask({"token": token, **cls._GREETING}, seconds=_CONNECT_SECONDS - _REPLY_SECONDS)
        except ControlError as error:
            control.close()
            if error.is_gone:
                raise OSError(str(error)) from error
            raise NotLetInError(str(error)) from error
        control.pid = reply["pid"] if isinstance(reply.get("pid"), int) else 0
        return control

    def state(self) -> dict[str, Any]:
        """`state` ("running", "paused" or "ended"), `seq`, `why` and `breakpoint`."""
        return self.ask({"do": "state"})

    def wait(self, seconds: float) -> dict[str, Any]:
        """The state as soon as the host is paused or ended, at the latest after `seconds`."""
        return self.ask({"do": "wait", "seconds": seconds}, seconds)

    def run(self, until: str) -> None:
        """Go on until "next", "any", "out", "parameter", "layer" or "breakpoint"."""
        self.ask({"do": "run", "until": until})

    def breakpoints(self, conditions: list[str]) -> None:
        """Replace the breakpoints; ControlError names the one that cannot be read."""
        self.ask({"do": "breakpoints", "set": conditions})

    def inspect(
        self, what: str = "source", *, row: int = 0, column: int = 0, rows: int = 8, columns: int = 8
    ) -> dict[str, Any]:
        """The tensor at hand ("source" or "parameter"): name, dtype, shape, statistics, histogram, window of values."""
        asked = {"do": "inspect", "what": what, "row": row, "column": column, "rows": rows, "columns": columns}
        return self.ask(asked)

    def stacks(self) -> list[tuple[str, list[str]]]:
        """The name of each host thread and what it does, `file:line function`, innermost first."""
        threads = self.ask({"do": "stacks"}).get("threads", [])
        return [(str(one.get("name")), [str(line) for line in one.get("frames", ())]) for one in threads]

    def pause(self) -> None:
        """Hold the host at its next event."""
        self.ask({"do": "pause"})

    def release(self) -> None:
        """Let the host go, without further pauses."""
        self.ask({"do": "release"})

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

    def ask(self, request: dict[str, Any], seconds: float = 0.0) -> dict[str, Any]:
        """The reply to one request, which may take `seconds` longer than others. ControlError when it is refused."""
        try:
            self._connection.settimeout(_REPLY_SECONDS + seconds)
            self._lines.write(json.dumps(request).encode() + b"\n")
            self._lines.flush()
            line = self._lines.readline(_MAX_REPLY_BYTES)
        except (OSError, ValueError) as error:
            raise ControlError(f"the host (pid {self.pid}) is gone: {error}", is_gone=True) from error
        if not line:
            raise ControlError(f"the host (pid {self.pid}) is gone", is_gone=True)
        try:
            reply = json.loads(line) if line.endswith(b"\n") else None
        except (ValueError, RecursionError) as error:
            raise ControlError(f"the host (pid {self.pid}) sent something that is no reply") from error
        if not isinstance(reply, dict) or not reply.get("ok"):
            raise ControlError(str(reply.get("error", "refused")) if isinstance(reply, dict) else "refused")
        return reply


def _unix(note: dict[str, Any]) -> socket.socket | None:
    if "address" not in note:
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_CONNECT_SECONDS)
    try:
        connection.connect(str(note["address"]))
    except OSError:
        connection.close()
        raise
    return connection


def _tcp(note: dict[str, Any]) -> socket.socket | None:
    """Where the socket's file is not on this machine; an address of another machine is not taken from a note."""
    host, _, port = str(note.get("tcp", "")).rpartition(":")
    if not host or not ipaddress.ip_address(host.strip("[]")).is_loopback:
        return None
    return socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS)
