"""Makes a bundle of a session: copies of its streams without secrets, its log, and no more than it may weigh."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sessions.bundle.layout import BUNDLE_SCHEMA, CONTENTS, DEFAULT_MAX_BYTES, STACKS
from sessions.bundle.redaction import Redactor
from sessions.copying import copy_stream
from sessions.errors import SessionError
from sessions.hostlog import LOG, LOG_TIMES
from sessions.layout import quoted, table_of
from sessions.manifest import FILE_NAME, Manifest

_LOG_HEAD_BYTES, _LOG_TAIL_BYTES = 256 << 10, 2 << 20
_LEAST_TELLING = ("kernel.launched", "tensor.kept", "value.summarized", "memory.sampled", "weight.written")
"""Kinds whose facts are left out first where a bundle would be too heavy; that they happened stays."""


@dataclass
class Contents:
    """The table of contents: why the bundle was made, and what it does not hold."""

    why: str
    created: str = ""
    redacted: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)


def pack(
    folder: Path,
    target: Path,
    *,
    why: str,
    environment: Mapping[str, str] | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
    with_tensors: bool = False,
) -> Contents:
    """Write the session in `folder` as one file `target`, whole or not at all; returns its table of contents.

    `environment` is that of the host: values of its secret variables are blotted out wherever they occur. Tensors are
    taken only on request. Raises OSError, and SessionError for a session that weighs more than `max_bytes` whatever
    is left out.
    """
    manifest = Manifest.read(folder)
    redactor = Redactor(os.environ if environment is None else environment)
    contents = Contents(why, manifest.outcome.ended if manifest.outcome is not None else manifest.created)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="loadscope-bundle-") as scratch:
        streams = list(_streams(folder, Path(scratch), redactor, contents))
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            for kinds in range(len(_LEAST_TELLING) + 1):
                _leave_out(streams, _LEAST_TELLING[:kinds], contents)
                _write(draft, folder, manifest, streams, redactor, contents, with_tensors)
                if draft.stat().st_size <= max_bytes:
                    draft.replace(target)
                    return contents
        finally:
            draft.unlink(missing_ok=True)
    raise SessionError(
        f"{folder}: its bundle would be larger than {max_bytes:,} bytes, whatever is left out",
        "Allow more with --bundle-bytes, or keep the session folder itself.",
    )


def _write(
    draft: Path,
    folder: Path,
    manifest: Manifest,
    streams: list[Path],
    redactor: Redactor,
    contents: Contents,
    with_tensors: bool,
) -> None:
    with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as bundle:
        for stream in streams:
            bundle.write(stream, f"streams/{stream.name}")
        bundle.writestr(FILE_NAME, _manifest_text(manifest, redactor))
        for name, data in _logs(folder, redactor):
            bundle.writestr(name, data)
        tensors = sorted((folder / "tensors").glob("*.safetensors"))
        for file in tensors if with_tensors else ():
            bundle.write(file, f"tensors/{file.name}")
        if tensors and not with_tensors:
            contents.left_out["tensors"] = len(tensors)
        contents.redacted = redactor.count
        facts = {"schema": BUNDLE_SCHEMA, "session": manifest.id, **vars(contents)}
        bundle.writestr(CONTENTS, json.dumps(facts, indent=1))


def _manifest_text(manifest: Manifest, redactor: Redactor) -> str:
    with tempfile.TemporaryDirectory(prefix="loadscope-bundle-") as scratch:
        manifest.write(Path(scratch))
        facts = json.loads((Path(scratch) / FILE_NAME).read_text(encoding="utf-8"))
    facts["command"] = redactor.words(manifest.command)
    return redactor.text(json.dumps(facts, indent=1, ensure_ascii=False))


def _logs(folder: Path, redactor: Redactor) -> Iterator[tuple[str, bytes]]:
    """The log and the times of its lines; of a long log the beginning and the end, its times then not at all."""
    log = folder / LOG
    if log.exists():
        data = log.read_bytes()
        is_whole = len(data) <= _LOG_HEAD_BYTES + _LOG_TAIL_BYTES
        if not is_whole:
            cut = f"\n... {len(data) - _LOG_HEAD_BYTES - _LOG_TAIL_BYTES:,} bytes left out ...\n".encode()
            data = data[:_LOG_HEAD_BYTES] + cut + data[-_LOG_TAIL_BYTES:]
        yield LOG, redactor.data(data)
        if is_whole and (folder / LOG_TIMES).exists():
            yield LOG_TIMES, (folder / LOG_TIMES).read_bytes()
    stacks = folder / STACKS
    if stacks.exists():
        yield STACKS, redactor.data(stacks.read_bytes())


def _streams(folder: Path, scratch: Path, redactor: Redactor, contents: Contents) -> Iterator[Path]:
    for path in sorted((folder / "streams").glob("*.sqlite")):
        copy = scratch / path.name
        try:
            copy_stream(path, copy, partial(_blot, redactor))
        except (SessionError, sqlite3.Error) as error:
            contents.unreadable.append(f"{path.name}: {error}")
            copy.unlink(missing_ok=True)
        else:
            yield copy


def _blot(redactor: Redactor, db: sqlite3.Connection) -> None:
    """Take secrets out of a stream's texts, and out of the file's free pages."""
    db.execute("PRAGMA secure_delete=ON")
    argvs = {row[0] for row in db.execute("SELECT value FROM meta WHERE key='argv'")}
    changed: list[tuple[str, int]] = []
    for number, text in db.execute("SELECT id, value FROM text"):
        if isinstance(text, str):
            clean = _words(text, redactor) if text in argvs or text.startswith('["') else redactor.text(text)
            if clean != text:
                changed.append((clean, number))
    db.executemany("UPDATE text SET value=? WHERE id=?", changed)
    db.executemany("UPDATE meta SET value=? WHERE value=?", [(_words(text, redactor), text) for text in argvs])
    db.execute("VACUUM")


def _words(text: str, redactor: Redactor) -> str:
    """A JSON list of words, such as a command line, without secrets."""
    try:
        words = json.loads(text)
    except ValueError:
        return redactor.text(text)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return redactor.text(text)
    clean = list(redactor.words(words))
    return text if clean == words else json.dumps(clean, separators=(",", ":"))


def _leave_out(streams: list[Path], kinds: tuple[str, ...], contents: Contents) -> None:
    for stream in streams:
        with contextlib.closing(sqlite3.connect(stream, isolation_level=None)) as db:
            tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
            for kind in kinds:
                table = table_of(kind)
                if table in tables:
                    count = db.execute(f"SELECT count(*) FROM {quoted(table)}").fetchone()[0]
                    if count:
                        contents.left_out[kind] = contents.left_out.get(kind, 0) + count
                        db.execute(f"DELETE FROM {quoted(table)}")
            db.execute("VACUUM")
