"""The control channel's server: JSON lines over a Unix socket that only the host's user can open."""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspectors.probe import together
from inspectors.probe.numbers import inspect_tensor

if TYPE_CHECKING:
    from inspectors.probe.gate import Gate

_MAX_LINE_BYTES = 1 << 20
_MAX_FRAMES = 100
_MAX_PATH_BYTES = 100  # AF_UNIX holds 108, a session folder is often longer


class RequestError(ValueError):
    """A request that cannot be done; its text is the reply's `error`."""


class ControlServer:
    """Listens in a thread of its own; its address and token are in `control/<pid>.json` of the session."""

    def __init__(self, listener: socket.socket, address: Path, note: Path, token: str, gate: Gate) -> None:
        self._listener, self._address, self._note, self._token, self._gate = listener, address, note, token, gate
        self._pid = os.getpid()

    @classmethod
    def open(cls, session: Path, gate: Gate) -> ControlServer | None:
        """Start to listen; None, with a line on standard error, where no socket can be made."""
        try:
            server = cls._listening(session, gate)
        except OSError as error:
            if sys.stderr is not None:
                print(f"loadscope: this host cannot be paused: {error}", file=sys.stderr)
            return None
        import atexit

        atexit.register(server.close)
        os.register_at_fork(after_in_child=server._listener.close)  # noqa: SLF001 - its own listener, in the child
        threading.Thread(target=server._accept, name="loadscope-control", daemon=True).start()  # noqa: SLF001
        return server

    @classmethod
    def _listening(cls, session: Path, gate: Gate) -> ControlServer:
        token, pid = os.urandom(16).hex(), os.getpid()
        folder = _private_folder(f"loadscope-{pid}-{token[:8]}")
        address = folder / "s"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(address))
            address.chmod(0o600)
            listener.listen(4)
            note = _write_note(session, address, token)
        except OSError:
            listener.close()
            _remove(address, folder)
            raise
        return cls(listener, address, note, token, gate)

    def move_to(self, session: Path) -> None:
        """Leave the note in another session's folder; whoever is connected stays so."""
        _remove(self._note)
        try:
            self._note = _write_note(session, self._address, self._token)
        except OSError as error:
            if sys.stderr is not None:
                print(f"loadscope: this host cannot be paused: {error}", file=sys.stderr)

    def close(self) -> None:
        """Remove socket and note; whoever waits is told that the host ends."""
        if os.getpid() != self._pid:
            return
        self._gate.end()
        self._listener.close()
        _remove(self._note, self._address, self._address.parent)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), name="loadscope-client", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError), connection.makefile("rwb") as lines:
            greeting = lines.readline(_MAX_LINE_BYTES)
            if not self._is_let_in(greeting):
                lines.write(b'{"ok":false,"error":"wrong token"}\n')
                lines.flush()
                return
            is_client = not together.only_looks(greeting)
            if is_client:
                self._gate.client_came()
            try:
                lines.write(_line({"ok": True}))
                lines.flush()
                while line := lines.readline(_MAX_LINE_BYTES):
                    lines.write(_line(self._answer(line)))
                    lines.flush()
            finally:
                if is_client:
                    self._gate.client_left()

    def _is_let_in(self, line: bytes) -> bool:
        try:
            said = json.loads(line)
        except ValueError:
            return False
        token = said.get("token") if isinstance(said, dict) else None
        return isinstance(token, str) and hmac.compare_digest(token.encode(), self._token.encode())

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            asked = json.loads(line)
            do = _request(asked)
            return {"ok": True, **do(self._gate, asked)}
        except Exception as error:
            return {"ok": False, "error": f"{error}" if isinstance(error, ValueError) else repr(error)}


_Do = Callable[["Gate", dict[str, Any]], dict[str, Any]]


def _request(asked: object) -> _Do:
    if not isinstance(asked, dict):
        raise RequestError("a request is an object with a key 'do'")
    do = _REQUESTS.get(str(asked.get("do")))
    if do is None:
        raise RequestError(f"unknown request {asked.get('do')!r}; known are {', '.join(_REQUESTS)}")
    return do


def _run(gate: Gate, asked: dict[str, Any]) -> dict[str, Any]:
    at_most = asked.get("at_most")
    gate.run(str(asked.get("until")), None if at_most is None else int(at_most), goes_on=asked.get("goes_on") is True)
    return {}


def _set_breakpoints(gate: Gate, asked: dict[str, Any]) -> dict[str, Any]:
    texts = asked.get("set")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise RequestError("breakpoints are given as a list of texts under 'set'")
    gate.set_breakpoints(texts)
    return {"breakpoints": texts}


def _inspect(gate: Gate, asked: dict[str, Any]) -> dict[str, Any]:
    held = gate.at_hand()
    if held is None:
        raise RequestError("no tensor is at hand: the host is not paused inside a loader call")
    what = asked.get("what", "source")
    if what not in {"source", "parameter"}:
        raise RequestError(f"cannot inspect {what!r}; known are source, parameter")
    name, tensor = (held.source_name, held.source) if what == "source" else (held.parameter_name, held.parameter)
    places = [int(asked.get(key, default)) for key, default in _WINDOW.items()]
    return {"name": name, **inspect_tensor(tensor, *places)}


_WINDOW = {"row": 0, "column": 0, "rows": 8, "columns": 8}


def _stacks(gate: Gate, asked: dict[str, Any]) -> dict[str, Any]:
    """What every thread of the host is doing: its name and `file:line function`, innermost first."""
    del gate, asked
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    threads = []
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - the documented way, for all its name
        name, at = names.get(ident, f"thread {ident}"), frame
        lines: list[str] = []
        while at is not None and len(lines) < _MAX_FRAMES:
            lines.append(f"{at.f_code.co_filename}:{at.f_lineno} {at.f_code.co_name}")
            at = at.f_back  # type: ignore[assignment]
        if not name.startswith("loadscope-"):
            threads.append({"name": name, "frames": lines})
    return {"pid": os.getpid(), "threads": threads}


def _done(act: Callable[[Gate], None]) -> _Do:
    def do(gate: Gate, asked: dict[str, Any]) -> dict[str, Any]:
        del asked
        act(gate)
        return {}

    return do


_REQUESTS: dict[str, _Do] = {
    "state": lambda gate, _: gate.state(),
    "wait": lambda gate, asked: gate.wait(float(asked.get("seconds", 10.0))),
    "run": _run,
    "breakpoints": _set_breakpoints,
    "inspect": _inspect,
    "stacks": _stacks,
    "pause": _done(lambda gate: gate.pause()),
    "release": _done(lambda gate: gate.release()),
    **together.REQUESTS,
}


def _line(reply: dict[str, Any]) -> bytes:
    return json.dumps(reply, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _write_note(session: Path, address: Path, token: str) -> Path:
    """`control/<pid>.json`: where this host listens, readable by its user alone."""
    note = session / "control" / f"{os.getpid()}.json"
    note.parent.mkdir(exist_ok=True)
    draft = note.with_suffix(".part")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123 - a path cannot be opened with a mode of rights
        json.dump({"pid": os.getpid(), "address": str(address), "token": token}, file)
    draft.replace(note)
    return note


def _private_folder(name: str) -> Path:
    """A new folder, mode 0700, whose path leaves room for a socket's name; OSError when there is none."""
    last: OSError | None = None
    for place in (os.environ.get("TMPDIR"), "/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108 - the folder in it is private
        if not place or len(os.fsencode(f"{place}/{name}/s")) > _MAX_PATH_BYTES:
            continue
        folder = Path(place, name)
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            last = error
        else:
            return folder
    raise last or OSError("no temporary folder with a short path; set TMPDIR to one")


def _remove(*paths: Path) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()
