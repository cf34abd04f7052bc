"""The sessions a folder holds, newest first, with what the start screen says about each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from sessions.errors import SessionError
from sessions.liveness import is_writer_alive
from sessions.manifest import FILE_NAME, Manifest

MOST = 200


@dataclass(frozen=True)
class Recent:
    """One session folder; `problem` says why its manifest cannot be read."""

    path: Path
    manifest: Manifest
    problem: str = ""

    @property
    def state(self) -> str:
        """How the host ended: as the manifest says, "running" while it lives, "unknown" when nobody wrote it."""
        outcome = self.manifest.outcome
        if outcome is not None and outcome.state != "running":
            return outcome.state
        return "running" if self.is_live else "unknown"

    @property
    def is_live(self) -> bool:
        """True while a process that writes a stream of it is there."""
        return not self.problem and any(is_writer_alive(stream) for stream in (self.path / "streams").glob("*.sqlite"))

    def age_seconds(self, now: datetime) -> float:
        """How long ago it was made; 0 when its manifest does not say."""
        try:
            created = datetime.fromisoformat(self.manifest.created.replace("Z", "+00:00"))
        except ValueError:
            return 0.0
        if created.tzinfo is None:
            created = created.replace(tzinfo=timezone.utc)
        return max(0.0, (now - created).total_seconds())


def recent(folder: Path) -> list[Recent]:
    """Every session of the folder by the time it was made; what cannot be read stays in the list with the reason."""
    try:
        paths = [path for path in folder.iterdir() if (path / FILE_NAME).is_file()]
    except OSError:
        return []
    found = [_read(path) for path in paths]
    return sorted(found, key=lambda one: (one.manifest.created, one.path.name), reverse=True)[:MOST]


def _read(path: Path) -> Recent:
    try:
        return Recent(path, Manifest.read(path))
    except SessionError as error:
        return Recent(path, Manifest(name=path.name), error.what)


def size_bytes(path: Path) -> int:
    """The bytes of all files of a session."""
    return sum(_size(file) for file in path.rglob("*"))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size if file.is_file() else 0
    except OSError:  # a host that runs may remove its socket while we look
        return 0
