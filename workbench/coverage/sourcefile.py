"""Reads bytes of the checkpoint that a session was recorded from, if it is still there and still the same."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from inspectors.probe import ggufheader
from sessions.checkpoint import listed
from sessions.session import Session
from sessions.stored import Stored

MOST_HEADER_BYTES = 100 << 20


@dataclass(frozen=True)
class Raw:
    """Bytes of a file, or why there are none: exactly one of `data` and `problem` is empty."""

    path: str
    data: bytes
    problem: str = ""


def raw_bytes(session: Session, tensor: Stored, begin: int, end: int) -> Raw:
    """The bytes begin..end-1 of the tensor's file. Nothing is read of a file whose header is not the recorded one."""
    if not tensor.begin <= begin < end <= tensor.end:
        return Raw("", b"", f"bytes {begin:,}–{end:,} are not of {tensor.name}")
    path = next((one for one in _places(session, tensor.file) if one.is_file()), None)
    if path is None:
        return Raw("", b"", f"{tensor.file} is not where it was loaded from")
    try:
        problem = _difference(session, path, tensor)
        if problem:
            return Raw(str(path), b"", problem)
        with path.open("rb") as opened:
            opened.seek(begin)
            data = opened.read(end - begin)
    except OSError as error:
        return Raw(str(path), b"", f"{path} cannot be read: {error.strerror or error}")
    if len(data) < end - begin:
        return Raw(str(path), b"", f"{path} ends before byte {end:,}")
    return Raw(str(path), data)


def _places(session: Session, file: str) -> list[Path]:
    opened = [row[6] for row in session.rows("checkpoint.opened", ("path",)) if row[6]]
    given = [Path(one) for one in dict.fromkeys((*opened, session.manifest.model)) if one]
    return [one if one.name == file else one / file for one in given if one.is_absolute()]


def _difference(session: Session, path: Path, tensor: Stored) -> str:
    """How the file differs from what was recorded of it, "" when it declares the tensor as it did then."""
    told = session.kept(
        f"declared {path} {path.stat().st_mtime_ns} {tensor.name}", lambda: _declared(path, tensor.name)
    )
    recorded = listed(session, tensor.name)
    if told is None:
        return f"{path} is another file now: it does not declare {tensor.name}"
    if recorded is None or told != (recorded.dtype, recorded.shape, recorded.begin, recorded.end):
        return f"{path} is another file now: it declares {tensor.name} as {told[0]} {list(told[1])} at {told[2]:,}"
    return ""


def _declared(path: Path, name: str) -> tuple[str, tuple[int, ...], int, int] | None:
    """Dtype, shape, begin and end of a tensor as the file's own header says."""
    if path.suffix == ggufheader.SUFFIX:
        found = ggufheader.read_header(path)
        return next((_pair(one) for one in found.tensors if one.name == name), None) if found is not None else None
    with path.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > min(MOST_HEADER_BYTES, path.stat().st_size):
            return None
        try:
            entry = json.loads(opened.read(length)).get(name)
            begin, end = entry["data_offsets"]
            return str(entry["dtype"]), tuple(entry["shape"]), 8 + length + begin, 8 + length + end
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


def _pair(one: ggufheader.Declared) -> tuple[str, tuple[int, ...], int, int]:
    return one.dtype, one.shape, one.begin, one.end
