"""The control channel's server: lines of JSON over a Unix socket that only the host's user can open, TCP on request."""

from __future__ import annotations

import hmac
import json
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspectors.probe import loopback, together
from inspectors.probe.doors import Door, Visit, private_folder, remove, unix_listener
from inspectors.probe.lines import LineError
from inspectors.probe.requests import TAKING, answer

if TYPE_CHECKING:
    from inspectors.probe.gate import Gate

TOKEN_SECONDS = 5.0
"""How long a stranger may take to say the token."""
_MAX_TOKEN_BYTES = 4096
_TAKING_SECONDS = 5.0
"""How long a host that ends waits for those who take the session's files."""


class ControlServer:
    """Listens in threads of its own; its addresses and token are in `control/<pid>.json` of the session."""

    def __init__(self, gate: Gate, session: Path, doors: list[socket.socket], facts: dict[str, Any]) -> None:
        self._gate, self._facts, self._pid = gate, facts, os.getpid()
        self._token = str(facts["token"]).encode()
        self._doors = [Door(listener, self._serve) for listener in doors]
        self._note = _write_note(session, facts)

    @classmethod
    def open(cls, session: Path, gate: Gate, listen: str = "") -> ControlServer | None:
        """Start to listen, with `listen` (HOST:PORT) on TCP as well; None, with a line on standard error, if it cannot.

        An address that others could reach is refused: then the host is on its Unix socket alone, and says so.
        """
        try:
            server = cls._listening(session, gate, listen)
        except OSError as error:
            _say(f"this host cannot be paused: {error}")
            return None
        import atexit

        atexit.register(server.close)
        for door in server._doors:  # noqa: SLF001 - its own doors
            os.register_at_fork(after_in_child=door.leave_to_parent)
            door.open()
        if "tcp" in server._facts:  # noqa: SLF001
            _say(f"process {os.getpid()} listens on {server._facts['tcp']}; its token is in {server._note}")  # noqa: SLF001
        return server

    @classmethod
    def _listening(cls, session: Path, gate: Gate, listen: str) -> ControlServer:
        token, pid = os.urandom(16).hex(), os.getpid()
        unix, address = unix_listener(private_folder(f"loadscope-{pid}-{token[:8]}"))
        facts = {"pid": pid, "address": str(address), "token": token}
        doors = [unix]
        tcp = _tcp(listen) if listen else None
        if tcp is not None:
            doors.append(tcp)
            facts["tcp"] = loopback.shown(*tcp.getsockname()[:2])
        try:
            return cls(gate, session, doors, facts)
        except OSError:
            for door in doors:
                door.close()
            remove(address, address.parent)
            raise

    def move_to(self, session: Path) -> None:
        """Leave the note in another session's folder; whoever is connected stays so."""
        remove(self._note)
        try:
            self._note = _write_note(session, self._facts)
        except OSError as error:
            _say(f"this host cannot be paused: {error}")

    def close(self) -> None:
        """Remove sockets and note; whoever waits is told that the host ends, and may take the rest of its files."""
        if os.getpid() != self._pid:
            return
        self._gate.end()
        for door in self._doors:
            door.close()
        address = Path(self._facts["address"])
        remove(self._note, address, address.parent)
        for door in self._doors:
            door.await_takers(_TAKING_SECONDS)

    def _serve(self, visit: Visit) -> None:
        lines = visit.lines
        greeting = b""
        try:
            greeting = lines.read(_MAX_TOKEN_BYTES, TOKEN_SECONDS)
            is_let_in = self._is_let_in(greeting)
        except (LineError, TimeoutError):
            is_let_in = False
        if not is_let_in:
            lines.write({"ok": False, "error": "wrong token"}, TOKEN_SECONDS)
            return
        visit.is_let_in = True
        is_client = not together.only_looks(greeting)
        if is_client:
            self._gate.client_came()
        try:
            lines.write({"ok": True, "pid": self._pid})
            while line := lines.read():
                name, reply = answer(self._gate, line)
                visit.takes_files = visit.takes_files or name in TAKING
                lines.write(reply)
        except LineError as error:
            lines.write({"ok": False, "error": str(error)}, TOKEN_SECONDS)
        finally:
            if is_client:
                self._gate.client_left()

    def _is_let_in(self, line: bytes) -> bool:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            return False
        token = said.get("token") if isinstance(said, dict) else None
        return isinstance(token, str) and hmac.compare_digest(token.encode("utf-8", "replace"), self._token)


def _tcp(listen: str) -> socket.socket | None:
    try:
        return loopback.listener(listen)
    except (loopback.AddressError, OSError) as error:
        _say(f"not listening on TCP, on the Unix socket alone: {error}")
        return None


def _say(text: str) -> None:
    if sys.stderr is not None:
        print(f"loadscope: {text}", file=sys.stderr, flush=True)


def _write_note(session: Path, facts: dict[str, Any]) -> Path:
    """`control/<pid>.json`: where this host listens, readable by its user alone."""
    note = session / "control" / f"{os.getpid()}.json"
    note.parent.mkdir(exist_ok=True)
    draft = note.with_suffix(".part")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123 - a path cannot be opened with a mode of rights
        json.dump(facts, file)
    draft.replace(note)
    return note
