"""Opens a bundle, which anybody may have written: only files with a session's names, no larger than they say."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path

from sessions.bundle.layout import BUNDLE_SCHEMA, CONTENTS, MAX_UNPACKED_BYTES, is_member
from sessions.errors import SessionError
from sessions.manifest import FILE_NAME

_CHUNK_BYTES = 1 << 20
_ZIP_MARK = b"PK"


def is_bundle(path: Path) -> bool:
    """Whether a path is a file that begins as a bundle does."""
    try:
        with path.open("rb") as file:
            return file.read(2) == _ZIP_MARK
    except OSError:
        return False


def unpack(path: Path, cache: Path) -> Path:
    """The session folder of a bundle, below `cache`; unpacked once for each content. SessionError when it is none."""
    folder = cache / _digest(path)
    if (folder / FILE_NAME).exists():
        return folder
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        with zipfile.ZipFile(path) as bundle:
            for member in _checked(path, bundle):
                _extract(path, bundle, member, draft / member.filename)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise _not_one(path, str(error) or type(error).__name__) from error
    except (OSError, SessionError):
        shutil.rmtree(draft, ignore_errors=True)
        raise
    (draft / "streams").mkdir(exist_ok=True)
    try:
        draft.rename(folder)
    except OSError:  # another process was faster
        shutil.rmtree(draft, ignore_errors=True)
        if not (folder / FILE_NAME).exists():
            raise
    return folder


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise SessionError(f"{path}: cannot be read: {error.strerror}", "Check its permissions.") from error
    return digest.hexdigest()[:24]


def _checked(path: Path, bundle: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    members = bundle.infolist()
    names = [member.filename for member in members]
    strange = next((name for name in names if not is_member(name)), None)
    if strange is not None:
        raise _not_one(path, f"it holds {strange!r}, which no session has")
    if len(set(names)) != len(names):
        raise _not_one(path, "it holds a file twice")
    missing = next((name for name in (CONTENTS, FILE_NAME) if name not in names), None)
    if missing is not None:
        raise _not_one(path, f"it holds no {missing}")
    size = sum(member.file_size for member in members)
    if size > MAX_UNPACKED_BYTES:
        raise _not_one(path, f"it would unpack to {size:,} bytes, at most {MAX_UNPACKED_BYTES:,} are taken")
    _check_schema(path, bundle)
    return members


def _check_schema(path: Path, bundle: zipfile.ZipFile) -> None:
    with bundle.open(CONTENTS) as file:
        try:
            schema = json.loads(file.read(_CHUNK_BYTES)).get("schema")
        except (ValueError, AttributeError) as error:
            raise _not_one(path, f"its {CONTENTS} is no JSON object") from error
    if not isinstance(schema, int) or schema > BUNDLE_SCHEMA:
        raise SessionError(
            f"{path}: bundle of schema {schema!r}, this version reads up to {BUNDLE_SCHEMA}",
            "Open it with the loadscope that made it, or upgrade this one.",
        )


def _extract(path: Path, bundle: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    left = member.file_size
    with bundle.open(member) as source, target.open("xb") as file:
        while chunk := source.read(_CHUNK_BYTES):
            left -= len(chunk)
            if left < 0:
                raise _not_one(path, f"{member.filename} is larger than it says")
            file.write(chunk)


def _not_one(path: Path, why: str) -> SessionError:
    return SessionError(
        f"{path}: not a bundle: {why}", "Give a session folder, or a file that loadscope run --on failure made."
    )
