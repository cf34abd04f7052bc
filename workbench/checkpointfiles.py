"""The identity of a checkpoint: its files by size and by a digest of headers and samples, and what differs of two."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from sessions.recipe import CheckpointFile

PATTERNS = ("*.safetensors", "*.gguf", "*.json")
WHOLE_BYTES = 8 << 20
HEAD_BYTES = 1 << 20
SAMPLES = 64
SAMPLE_BYTES = 4096
METHOD = "samples1:"
"""A file of up to WHOLE_BYTES is read whole; of a larger one its beginning, where headers are, and samples.

METHOD stands before each digest: one that was made in another way is not compared."""


def files_of(place: Path) -> tuple[CheckpointFile, ...]:
    """The files of a checkpoint folder (or the one file), by name; what cannot be read is left out."""
    if place.is_file():
        paths = [place]
    else:
        paths = sorted({path for pattern in PATTERNS for path in place.glob(pattern) if path.is_file()})
    return tuple(one for one in map(_file, paths) if one is not None)


def _file(path: Path) -> CheckpointFile | None:
    try:
        facts = path.stat()
        return CheckpointFile(path.name, facts.st_size, facts.st_mtime_ns, _digest(path, facts.st_size))
    except OSError:
        return None


def _digest(path: Path, size: int) -> str:
    """SHA-256 of a small file; of a large one of its beginning and of evenly spread samples, which is a few reads."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        found.update(file.read(WHOLE_BYTES if size <= WHOLE_BYTES else HEAD_BYTES))
        for n in range(SAMPLES if size > WHOLE_BYTES else 0):
            file.seek(HEAD_BYTES + (size - HEAD_BYTES - SAMPLE_BYTES) * n // (SAMPLES - 1))
            found.update(file.read(SAMPLE_BYTES))
    return METHOD + found.hexdigest()


def differing(recorded: Sequence[CheckpointFile], found: Sequence[CheckpointFile]) -> list[str]:
    """What is not as it was recorded, one sentence a file; times alone are no difference."""
    here = {one.name: one for one in found}
    is_single = len(recorded) == len(found) == 1  # the name of a checkpoint that is one file is its person's own
    out: list[str] = []
    for was in recorded:
        now = found[0] if is_single else here.get(was.name)
        if now is None:
            out.append(f"{was.name} is not there")
        elif now.size_bytes != was.size_bytes:
            out.append(f"{was.name} has {now.size_bytes:,} bytes, recorded were {was.size_bytes:,}")
        elif now.digest != was.digest and was.digest.startswith(METHOD):
            out.append(f"{was.name} has other contents than when it was recorded")
    return out


def written_since(recorded: Sequence[CheckpointFile], found: Sequence[CheckpointFile]) -> list[str]:
    """Large files with another time: of them only the beginning and samples are known to be the same."""
    times = {one.name: one.modified_ns for one in recorded}
    large = (one for one in found if one.size_bytes > WHOLE_BYTES)
    return [one.name for one in large if times.get(one.name) not in {None, one.modified_ns}]
