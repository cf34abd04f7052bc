"""The manifest of a session, `session.json`: what was run, how it was watched and how it ended."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from inspectors.probe.events import SCHEMA_VERSION
from sessions.errors import SessionError
from sessions.recipe import Recipe

FILE_NAME = "session.json"
STATES = ("running", "ok", "failed", "killed", "interrupted")


@dataclass(frozen=True)
class Outcome:
    """How the host ended. `state` is one of STATES; `exit_code` is None while running or after a signal."""

    state: str = "running"
    exit_code: int | None = None
    signal: str | None = None
    ended: str = ""
    duration_s: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """The facts of `session.json`; keys this version does not know are kept in `extra` and written back.

    `kinds` are those that the recorder knew, `versions` are as "torch 2.13.0", `recipe` is how to do the same again.
    """

    schema: int = SCHEMA_VERSION
    id: str = ""
    created: str = ""
    verb: str = ""
    command: tuple[str, ...] = ()
    level: str = "calls"
    engines: tuple[str, ...] = ()
    inspectors: tuple[str, ...] = ()
    engine: str = ""
    engine_version: str = ""
    device: str = ""
    tp: int = 1
    model: str = ""
    name: str = ""
    format: str = ""
    architecture: str = ""
    scenario: str | None = None
    is_paused_at_start: bool = False
    breakpoints: tuple[str, ...] = ()
    max_events: int = 0
    limits: str = ""
    kinds: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    recipe: Recipe | None = None
    outcome: Outcome | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def attached_at(self) -> str:
        """When the process was entered in the middle of its life, "" when it was watched from its start."""
        said = self.extra.get("attached")
        return str(said.get("at", "?")) if isinstance(said, dict) else ""

    @classmethod
    def read(cls, path: Path | str) -> Manifest:
        """Read `session.json` of a session folder (or the file itself); SessionError when it is not one."""
        file = _file_of(Path(path))
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SessionError(f"{file}: cannot be read: {error}", "Give a folder that trace or demo wrote.") from error
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise SessionError(
                f"{file}: not JSON: {error}", "It was cut off while being written; record the load again."
            ) from error
        if not isinstance(raw, dict):
            raise SessionError(f"{file}: expected a JSON object, found {type(raw).__name__}", "Give a session folder.")
        return _manifest(raw, file)

    def write(self, path: Path | str) -> None:
        """Write to `path` (folder or file) by renaming a complete file over the old one; OSError passes through."""
        file = _file_of(Path(path))
        facts = asdict(self)
        facts.update(facts.pop("extra"))
        if self.outcome is not None:
            facts["outcome"].update(facts["outcome"].pop("extra"))
        part = file.with_name(f".{file.name}.{os.getpid()}")
        part.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(file)


def timestamp() -> str:
    """The time now, as manifests tell it: UTC, to the millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _file_of(path: Path) -> Path:
    return path if path.name == FILE_NAME else path / FILE_NAME


def _manifest(raw: dict[str, Any], file: Path) -> Manifest:
    _check_schema(raw, file)
    known, extra = _split(raw, Manifest, file)
    if isinstance(raw.get("outcome"), dict):
        facts, more = _split(raw["outcome"], Outcome, file)
        known["outcome"] = Outcome(**facts, extra=more)
    if isinstance(raw.get("recipe"), dict):
        known["recipe"] = Recipe.read(raw["recipe"], file)
    return Manifest(**known, extra=extra)


def _check_schema(raw: dict[str, Any], file: Path) -> None:
    schema = raw.get("schema", SCHEMA_VERSION)
    if not isinstance(schema, int) or schema > SCHEMA_VERSION:
        raise SessionError(
            f"{file}: session of schema {schema!r}, this version reads up to {SCHEMA_VERSION}",
            "Open it with the loadscope that recorded it, or upgrade this one.",
        )


_CHECKS: dict[str, tuple[type, ...]] = {
    "int": (int,), "str": (str,), "bool": (bool,), "float": (int, float), "tuple[str, ...]": (list,),
    "str | None": (str, type(None)), "int | None": (int, type(None)), "Outcome | None": (dict, type(None)),
    "Recipe | None": (dict, type(None)),
}  # fmt: skip


def _split(raw: dict[str, Any], cls: type[Any], file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    types = {f.name: str(f.type) for f in fields(cls) if f.name != "extra"}
    known: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in types:
            continue
        if not isinstance(value, _CHECKS[types[key]]):
            raise SessionError(
                f"{file}: {key!r} is {value!r}, expected {types[key]}", "Restore session.json or record the load again."
            )
        known[key] = tuple(str(v) for v in value) if isinstance(value, list) else value
    return known, {key: value for key, value in raw.items() if key not in types}
