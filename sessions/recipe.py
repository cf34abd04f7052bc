"""What a load was asked for, as far as it is needed to do the same again; kept in the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sessions.errors import SessionError


@dataclass(frozen=True)
class CheckpointFile:
    """One file of a checkpoint: its name in the folder, and a digest of its header and of samples of its data."""

    name: str
    size_bytes: int
    modified_ns: int
    digest: str


@dataclass(frozen=True)
class Recipe:
    """One load. `extra` are words of the engine's own command line, `python` an interpreter ("": the workbench's).

    `planted` names the scenario whose defect the engine had, `folder` is where the workbench was started, `files` are
    those of the checkpoint when the load began.
    """

    prompt_ids: tuple[int, ...] = ()
    max_new_tokens: int = 0
    extra: tuple[str, ...] = ()
    python: str = ""
    rank: str = "all"
    planted: str = ""
    folder: str = ""
    files: tuple[CheckpointFile, ...] = ()

    @classmethod
    def read(cls, raw: Mapping[str, Any], file: Path) -> Recipe:
        """From the JSON of a manifest. SessionError naming the field that is not what it must be."""
        return cls(
            prompt_ids=tuple(_list(raw, "prompt_ids", int, file)),
            max_new_tokens=_one(raw, "max_new_tokens", int, 0, file),
            extra=tuple(_list(raw, "extra", str, file)),
            python=_one(raw, "python", str, "", file),
            rank=_one(raw, "rank", str, "all", file),
            planted=_one(raw, "planted", str, "", file),
            folder=_one(raw, "folder", str, "", file),
            files=tuple(_file(one, file) for one in _list(raw, "files", dict, file)),
        )


def _file(raw: Mapping[str, Any], file: Path) -> CheckpointFile:
    name, digest = (_one(raw, field, str, "", file) for field in ("name", "digest"))
    size_bytes, modified_ns = (_one(raw, field, int, 0, file) for field in ("size_bytes", "modified_ns"))
    return CheckpointFile(name, size_bytes, modified_ns, digest)


def _one(raw: Mapping[str, Any], name: str, kind: type[Any], otherwise: Any, file: Path) -> Any:
    value = raw.get(name, otherwise)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _wrong(file, name, value, kind.__name__)
    return value


def _list(raw: Mapping[str, Any], name: str, kind: type[Any], file: Path) -> list[Any]:
    value = raw.get(name, [])
    if not isinstance(value, list) or not all(isinstance(one, kind) for one in value):
        raise _wrong(file, name, value, f"list of {kind.__name__}")
    return value


def _wrong(file: Path, name: str, value: object, wanted: str) -> SessionError:
    what = f"{file}: {name!r} of the recipe is {value!r}, expected {wanted}"
    return SessionError(what, "Restore session.json or record the load again.")
