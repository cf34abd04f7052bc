"""A session of another machine as a folder here, taken through its host's control channel and kept up to date."""

from __future__ import annotations

import base64
import json
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sessions.bundle.layout import MAX_UNPACKED_BYTES, STACKS
from sessions.control import Control, ControlError
from sessions.errors import SessionError
from sessions.hostlog import LOG, LOG_TIMES
from sessions.liveness import MIRROR
from sessions.manifest import FILE_NAME
from sessions.streamcopy import StrangeReplyError, StreamCopy

MOST_STREAMS = 4096
_MOST_MANIFEST_BYTES = 4 << 20
_STREAM = re.compile(r"streams/[0-9]{1,10}-[0-9]{1,6}\.sqlite")

Tell = Callable[[int], None]


class Mirror:
    """The session of `control`'s host in `folder`, which is its own or an earlier mirror of the same session.

    Names and bytes are a stranger's: only files with a session's names, streams row by row into files made here, and
    no more than `max_bytes`. Kept tensors are not taken. `unread` says why of streams that the host cannot read.
    """

    def __init__(self, control: Control, folder: Path, address: str, max_bytes: int = MAX_UNPACKED_BYTES) -> None:
        self.folder, self.bytes = folder, 0
        self._control, self._address, self._max_bytes = control, address, max_bytes
        self.unread: dict[str, str] = {}
        self._streams: dict[str, StreamCopy] = {}
        self._seen: dict[str, object] = {}
        self._tell: Tell | None = None

    def identity(self) -> str:
        """What tells this session from others: its id and when it was made; "" for a session that has no manifest."""
        try:
            said = json.loads(self._whole(FILE_NAME))
        except (ControlError, ValueError, RecursionError):
            return ""
        return f"{said.get('id')} {said.get('created')}" if isinstance(said, dict) else ""

    def pull(self, tell: Tell | None = None) -> bool:
        """Take what is new since the last time; False when there was nothing.

        `tell` is told how many bytes came so far. SessionError for a host that sends what no session holds, or more
        than is taken; ControlError when it is gone; OSError of the disk.
        """
        self._tell = tell
        try:
            return self._pull()
        except (StrangeReplyError, sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
            raise SessionError(
                f"{self._address}: what it sends is no session: {error}", "Is this port that of a Loadscope host?"
            ) from error

    def _pull(self) -> bool:
        listed = self._listed()
        is_changed = [self._pull_stream(name) for name in listed if _STREAM.fullmatch(name)]
        for name in _PLAIN:
            if name in listed and listed[name] != self._seen.get(name):
                size = listed[name][0]
                is_changed.append(self._grow(name, size) if name in (LOG, LOG_TIMES) else self._replace(name))
                self._seen[name] = listed[name]
        return any(is_changed)

    def _pull_stream(self, name: str) -> bool:
        try:
            is_changed = self._copy_of(name).pull()
        except ControlError as error:
            if error.is_gone:
                raise
            self.unread[name] = str(error)
            return False
        self.unread.pop(name, None)
        return is_changed

    def mark(self, *, is_followed: bool, of: str) -> None:
        """Say in the folder what it is a mirror of, and whether this process keeps it up to date."""
        said = {"host": self._address, "of": of, "pid": os.getpid(), "is_followed": is_followed}
        _write(self.folder / MIRROR, json.dumps(said).encode())

    def _listed(self) -> dict[str, tuple[int, object]]:
        """Size and time of the files that are taken; others, whatever they are called, are left where they are."""
        told = self._control.ask({"do": "files"}).get("files")
        if not isinstance(told, list) or len(told) > 2 * MOST_STREAMS:
            raise StrangeReplyError("no list of files")
        found = {}
        for one in told:
            name, size = (one.get("name"), one.get("bytes")) if isinstance(one, dict) else (None, None)
            if isinstance(name, str) and isinstance(size, int) and (_STREAM.fullmatch(name) or name in _PLAIN):
                found[name] = size, one.get("changed_ns")
        return found

    def _copy_of(self, name: str) -> StreamCopy:
        if name not in self._streams:
            (self.folder / "streams").mkdir(exist_ok=True)
            self._streams[name] = StreamCopy(self.folder / name, name, self._control.ask, self._counted)
        return self._streams[name]

    def _grow(self, name: str, size: int) -> bool:
        """Append what was appended there."""
        path = self.folder / name
        had = path.stat().st_size if path.exists() else 0
        if size < had:
            path.unlink()
            had = 0
        at = had
        while data := self._piece(name, at):
            with open(path, "ab", opener=_private) as file:
                file.write(data)
            at += len(data)
        return at > had

    def _replace(self, name: str) -> bool:
        data, path = self._whole(name), self.folder / name
        if path.exists() and path.read_bytes() == data:
            return False
        _write(path, data)
        return True

    def _whole(self, name: str) -> bytes:
        whole = b""
        while data := self._piece(name, len(whole)):
            whole += data
            if len(whole) > _MOST_MANIFEST_BYTES:
                raise StrangeReplyError(f"{name} of more than {_MOST_MANIFEST_BYTES:,} bytes")
        return whole

    def _piece(self, name: str, start: int) -> bytes:
        data: Any = self._control.ask({"do": "piece", "name": name, "start": start}).get("data")
        try:
            piece = base64.b64decode(data, validate=True)
        except (ValueError, TypeError) as error:
            raise StrangeReplyError(f"{name} in another spelling than base64") from error
        self._counted(len(piece))
        return piece

    def _counted(self, size: int) -> None:
        self.bytes += size
        if self.bytes > self._max_bytes:
            raise SessionError(
                f"{self._address}: its session has more than {self._max_bytes:,} bytes; no more are taken",
                "Look at it on its own machine.",
            )
        if self._tell is not None:
            self._tell(self.bytes)


_PLAIN = (LOG, LOG_TIMES, STACKS, FILE_NAME)


def mirrored(folder: Path) -> str:
    """What a folder is a mirror of, "" when it is none."""
    try:
        return str(json.loads((folder / MIRROR).read_text("utf-8"))["of"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(draft, "wb", opener=_private) as file:
        file.write(data)
    draft.replace(path)
