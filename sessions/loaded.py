"""What a session loaded, with what: as the manifest says, and for a person's own command as it was recorded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from inspectors.probe.events import CheckpointOpened, EngineFound, RankJoined
from sessions.session import Session


@dataclass(frozen=True)
class Loaded:
    """`tp` is None where neither the manifest nor a rank says it."""

    name: str
    format: str
    engine: str
    engine_version: str
    device: str
    tp: int | None

    @property
    def facts(self) -> tuple[str, ...]:
        """What is known besides the name: format, "tp 4", engine with its version, device."""
        engine = " ".join(part for part in (self.engine, self.engine_version) if part not in {"", "source"})
        told = (self.format, f"tp {self.tp}" if self.tp else "", engine, self.device)
        return tuple(part for part in told if part)


NOTHING = Loaded("", "", "", "", "", None)


def loaded(session: Session) -> Loaded:
    """What was loaded: the checkpoint's folder name, format, engine with version, device and tensor parallel size."""
    manifest = session.manifest
    if manifest.engine:
        return Loaded(
            manifest.name, manifest.format, manifest.engine, manifest.engine_version, manifest.device, manifest.tp
        )
    return session.kept("loaded", lambda: _recorded(session))


def tp_of(session: Session) -> int:
    """The tensor parallel size, 1 where nobody says it."""
    return max(1, loaded(session).tp or 1)


def _model_name(folder: PurePosixPath) -> str:
    """The folder's name; of one in the cache of Hugging Face's hub the name that was downloaded."""
    kept = folder.parent.parent.name
    is_snapshot = folder.parent.name == "snapshots" and kept.startswith("models--")
    return kept.removeprefix("models--").replace("--", "/") if is_snapshot else folder.name


def _recorded(session: Session) -> Loaded:
    manifest = session.manifest
    joined = [event.body for event in session.of_kinds(RankJoined.kind)]
    sizes = [body.tp for body in joined if isinstance(body, RankJoined)]
    engine = next((body.engine for body in joined if isinstance(body, RankJoined)), "")
    found = {b.engine: b.version for e in session.of_kinds(EngineFound.kind) if isinstance(b := e.body, EngineFound)}
    opened = [e.body for e in session.of_kinds(CheckpointOpened.kind)]
    paths = [PurePosixPath(body.path) for body in opened if isinstance(body, CheckpointOpened) and body.path]
    engine = engine or next(iter(found), "")
    return Loaded(
        name=_model_name(paths[0]) if paths and manifest.verb == "run" else manifest.name,
        format=manifest.format,
        engine=engine,
        engine_version=found.get(engine, ""),
        device=manifest.device,
        tp=max([*sizes, manifest.tp if manifest.tp > 1 else 0]) or None,
    )
