"""Which GGUF files make up a model: one, or those of a split, given by a file or by the folder that holds them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from backends.native.errors import CheckpointError

SUFFIX = ".gguf"
SPLIT_NAME = re.compile(r"^(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")
PROJECTOR = "mmproj"
"""Part of the name of a file with a model of images, which stands beside that of the language model."""


def gguf_files(path: str | Path) -> tuple[Path, ...]:
    """The model's files in order, none where `path` is another kind of checkpoint; raises CheckpointError."""
    place = Path(path)
    if place.is_dir():
        if any(place.glob("*.safetensors")) or any(place.glob("*.safetensors.index.json")):
            return ()
        return _of_folder(place)
    return _completed(place) if place.suffix == SUFFIX else ()


def _of_folder(folder: Path) -> tuple[Path, ...]:
    found = sorted(path for path in folder.glob(f"*{SUFFIX}") if PROJECTOR not in path.name.lower())
    models = {_split_stem(path): path for path in reversed(found)}
    if len(models) > 1:
        raise CheckpointError(
            f"{folder} holds {len(models)} models: {', '.join(sorted(path.name for path in models.values()))}.",
            "pass one of these files",
        )
    return _completed(found[0]) if found else ()


def _split_stem(path: Path) -> str:
    match = SPLIT_NAME.match(path.name)
    return f"{match['stem']} of {match['count']}" if match else path.name


def _completed(path: Path) -> tuple[Path, ...]:
    """All files of the split that `path` belongs to, or itself."""
    match = SPLIT_NAME.match(path.name)
    if match is None:
        _require_files([path])
        return (path,)
    count = int(match["count"])
    files = [path.with_name(f"{match['stem']}-{n:05}-of-{count:05}{SUFFIX}") for n in range(1, count + 1)]
    _require_files(files)
    return tuple(files)


def _require_files(files: Iterable[Path]) -> None:
    for file in files:
        if not file.is_file():
            raise CheckpointError(
                f"{file} is not there.", "download it: all files of a split model stand in one folder"
            )
