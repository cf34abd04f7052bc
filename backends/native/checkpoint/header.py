"""The header of one safetensors file, checked against the file's length before a tensor is read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.native.errors import CheckpointError

LENGTH_BYTES = 8
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "F4": 4,
}  # fmt: skip
AGAIN = "download or write that file again"


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a checkpoint file; the byte range counts from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start_byte: int
    end_byte: int


def read_header(path: Path) -> tuple[TensorEntry, ...]:
    """Entries in the order of their bytes; raises CheckpointError for a missing, truncated or malformed file."""
    fields, data_start = _read_json_header(path)
    entries = [_entry(path, name, value, data_start) for name, value in fields.items() if name != "__metadata__"]
    entries.sort(key=lambda entry: (entry.start_byte, entry.end_byte))
    _require_no_gaps(path, entries, data_start)
    expected_bytes = entries[-1].end_byte if entries else data_start
    found_bytes = path.stat().st_size
    if found_bytes != expected_bytes:
        defect = "truncated" if found_bytes < expected_bytes else "too long"
        cut = next((f", tensor {e.name} ends at {e.end_byte}" for e in entries if e.end_byte > found_bytes), "")
        raise CheckpointError(
            f"{path} is {defect}: its header promises {expected_bytes} bytes, the file has {found_bytes}{cut}.", AGAIN
        )
    return tuple(entries)


def _require_no_gaps(path: Path, entries: Sequence[TensorEntry], data_start: int) -> None:
    """The format has no gaps; a range that overlaps another, or begins before the data, is of other bytes."""
    before = data_start
    for entry in entries:
        if entry.start_byte != before:
            raise CheckpointError(
                f"{path}: tensor {entry.name} begins at byte {entry.start_byte}, expected {before}, where the one "
                "before it ends.",
                AGAIN,
            )
        before = entry.end_byte


def _read_json_header(path: Path) -> tuple[Mapping[str, Any], int]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(LENGTH_BYTES), "little")
            # A wrong length would otherwise ask for terabytes of memory.
            text = file.read(length) if length < path.stat().st_size else b""
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be opened: {error.strerror}.", "check the path and the file's permissions"
        ) from error
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise CheckpointError(
            f"{path} is not a safetensors file: no JSON header of {length} bytes at its start.", AGAIN
        ) from error
    if not isinstance(fields, dict):
        raise CheckpointError(
            f"{path} is not a safetensors file: its header is a {type(fields).__name__}, expected an object.", AGAIN
        )
    return fields, LENGTH_BYTES + length


def _entry(path: Path, name: str, value: Any, data_start: int) -> TensorEntry:
    try:
        dtype, shape = value["dtype"], tuple(int(size) for size in value["shape"])
        start, end = (int(offset) for offset in value["data_offsets"])
        expected_bytes = math.prod(shape) * DTYPE_BITS[dtype] // 8
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} has a malformed header: tensor {name} is described by {value!r}.", AGAIN
        ) from error
    if end - start != expected_bytes or min(shape, default=0) < 0:
        raise CheckpointError(
            f"{path}: tensor {name} {dtype} {list(shape)} needs {expected_bytes} bytes, its range has {end - start}.",
            AGAIN,
        )
    return TensorEntry(name, dtype, shape, data_start + start, data_start + end)
