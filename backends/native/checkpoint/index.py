"""Which file holds which tensor: opens a checkpoint folder and checks its index against the files' headers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from backends.native.checkpoint.gguf_files import gguf_files
from backends.native.checkpoint.gguf_header import read_gguf_header
from backends.native.checkpoint.header import TensorEntry, read_header
from backends.native.errors import CheckpointError

INDEX_NAME = "model.safetensors.index.json"


@dataclass(frozen=True)
class CheckpointFile:
    """One safetensors file and its tensors in byte order."""

    path: Path
    entries: tuple[TensorEntry, ...]


@dataclass(frozen=True)
class Checkpoint:
    """A folder with config.json and one or more safetensors files; every name is held by one file."""

    folder: Path
    files: tuple[CheckpointFile, ...]

    def entries(self) -> Iterator[TensorEntry]:
        """All tensors, file by file, in the order in which they are read."""
        for file in self.files:
            yield from file.entries

    @property
    def tensor_count(self) -> int:
        """Number of tensors on disk."""
        return sum(len(file.entries) for file in self.files)


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Read the index and all headers, no tensor; raises CheckpointError naming the file that is wrong."""
    folder, converted = Path(path), gguf_files(path)
    if converted:
        return _open_gguf(converted)
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} is not a folder.",
            "pass the folder that holds config.json and the safetensors files, or a GGUF file",
        )
    index = folder / INDEX_NAME
    weight_map = _read_weight_map(index) if index.exists() else None
    names = (
        sorted(set(weight_map.values()))
        if weight_map is not None
        else sorted(p.name for p in folder.glob("*.safetensors"))
    )
    if not names:
        raise CheckpointError(
            f"{folder} holds no safetensors file: expected {INDEX_NAME}, *.safetensors or one model in *.gguf.",
            "download the weights, or convert them to safetensors",
        )
    for name in names:
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{index} names {name}, which is not in {folder}.",
                "download the missing file, or write the index again",
            )
    files = tuple(CheckpointFile(folder / name, read_header(folder / name)) for name in names)
    _require_one_place_each(files)
    if weight_map is not None:
        _require_index_agrees(index, weight_map, files)
    return Checkpoint(folder, files)


def _open_gguf(paths: Sequence[Path]) -> Checkpoint:
    headers = [read_gguf_header(path) for path in paths]
    files = tuple(CheckpointFile(header.path, tuple(tensor.entry for tensor in header.tensors)) for header in headers)
    _require_one_place_each(files)
    expected, found = headers[0].metadata.get("split.tensors.count"), sum(len(file.entries) for file in files)
    if len(files) > 1 and expected is not None and expected != found:
        raise CheckpointError(
            f"{paths[0]} says that the split model has {expected} tensors, its {len(files)} files have {found}.",
            "download all files of the split again",
        )
    return Checkpoint(paths[0].parent, files)


def _read_weight_map(index: Path) -> Mapping[str, str]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{index} is malformed: expected a JSON object with a weight_map ({type(error).__name__}: {error}).",
            "download or write the index again",
        ) from error
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(
            f"{index} is malformed: weight_map must map tensor names to file names.",
            "download or write the index again",
        )
    return weight_map


def _require_one_place_each(files: tuple[CheckpointFile, ...]) -> None:
    seen: dict[str, Path] = {}
    for file in files:
        for entry in file.entries:
            if entry.name in seen:
                raise CheckpointError(
                    f"tensor {entry.name} is in {seen[entry.name].name} and in {file.path.name}.",
                    "remove the file that does not belong to this checkpoint",
                )
            seen[entry.name] = file.path


def _require_index_agrees(index: Path, weight_map: Mapping[str, str], files: tuple[CheckpointFile, ...]) -> None:
    held = {entry.name: file.path.name for file in files for entry in file.entries}
    for name, file_name in weight_map.items():
        if held.get(name) != file_name:
            found = f"it is in {held[name]}" if name in held else "no file has it"
            raise CheckpointError(
                f"{index} says tensor {name} is in {file_name}, but {found}.",
                "download the file again, or write the index again",
            )
