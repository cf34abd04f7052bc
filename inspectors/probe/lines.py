"""Lines of JSON over a socket: none longer than it may be, none that takes longer to come than it may."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

MAX_LINE_BYTES = 1 << 20
_PIECE_BYTES = 1 << 16


class LineError(ValueError):
    """What came is no line of the protocol; the connection cannot go on."""


class Lines:
    """One connection. Nothing is read ahead of a line's end but what came with it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._held = connection, bytearray()

    def read(self, most: int = MAX_LINE_BYTES, seconds: float | None = None) -> bytes:
        """The next line without its end, b"" when the other side has left.

        LineError for one of more than `most` bytes, TimeoutError when it is not whole after `seconds`.
        """
        until = None if seconds is None else time.monotonic() + seconds
        looked = 0
        while True:
            at = self._held.find(b"\n", looked)
            if at > most or (at < 0 and len(self._held) > most):
                raise LineError(f"a line has at most {most:,} bytes")
            if at >= 0:
                line = bytes(self._held[:at])
                del self._held[: at + 1]
                return line or b" "
            looked = len(self._held)
            piece = self._receive(until)
            if not piece:
                return b""
            self._held += piece

    def _receive(self, until: float | None) -> bytes:
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError("no line came in time")
        self._connection.settimeout(left)
        return self._connection.recv(_PIECE_BYTES)

    def write(self, said: dict[str, Any], seconds: float | None = None) -> None:
        """Send an object as one line; raises OSError."""
        self._connection.settimeout(seconds)
        self._connection.sendall(json.dumps(said, separators=(",", ":"), allow_nan=False).encode() + b"\n")
