"""Reads what a GGUF file declares, with the standard library: its architecture, its layers and its tensors."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b"GGUF"
SUFFIX = ".gguf"
DEFAULT_ALIGNMENT = 32
MOST_ENTRIES = 1 << 20
MOST_BYTES = 64 << 20
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 30: ("BF16", 1, 2), 28: ("F64", 1, 8), 24: ("I8", 1, 1), 25: ("I16", 1, 2),
    26: ("I32", 1, 4), 27: ("I64", 1, 8), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 15: ("Q8_K", 256, 292), 41: ("Q1_0", 128, 18),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 19: ("IQ1_S", 256, 50), 29: ("IQ1_M", 256, 56), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 22: ("IQ2_S", 256, 82), 18: ("IQ3_XXS", 256, 98), 21: ("IQ3_S", 256, 110),
    20: ("IQ4_NL", 32, 18), 23: ("IQ4_XS", 256, 136), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36),
}  # fmt: skip
"""Type number -> its name, the elements of a block and their bytes, as the format's documentation lists them."""


@dataclass(frozen=True)
class Declared:
    """One tensor: `shape` counts elements, the last dimension contiguous; bytes count from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """What one file says of itself; `tensors` are in byte order."""

    architecture: str
    layers: int
    tensors: tuple[Declared, ...]


def files_of(path: Path) -> list[Path]:
    """The GGUF files of a checkpoint given as a file, with the other files of its split, or as a folder."""
    if path.suffix == SUFFIX:
        stem, split, _ = path.name.rpartition("-of-")
        front = stem.rpartition("-")[0]
        return sorted(path.parent.glob(f"{front}-*-of-*{SUFFIX}")) if split and front else [path]
    return sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else []


def read_header(path: Path) -> Header | None:
    """The header of a file; None for one that cannot be read, which is the engine's to complain about."""
    try:
        with path.open("rb") as file:
            return _header(file)
    except (OSError, ValueError, struct.error):
        return None


def _header(file: BinaryIO) -> Header:
    if _taken(file, 4) != MAGIC:
        raise ValueError("no GGUF file")
    _number(file, "I")
    tensors, keys = _number(file, "Q"), _number(file, "Q")
    if max(tensors, keys) > MOST_ENTRIES:
        raise ValueError("more entries than a model has")
    metadata = dict(_pairs(file, keys))
    declared = [_tensor(file) for _ in range(tensors)]
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT) or DEFAULT_ALIGNMENT
    start = -(-file.tell() // alignment) * alignment
    architecture = str(metadata.get("general.architecture", ""))
    layers = metadata.get(f"{architecture}.block_count", 0)
    placed = (Declared(d.name, d.dtype, d.shape, d.begin + start, d.end + start) for d in declared)
    return Header(architecture, int(layers), tuple(sorted(placed, key=lambda one: one.begin)))


def _pairs(file: BinaryIO, count: int) -> Iterator[tuple[str, Any]]:
    for _ in range(count):
        key = _string(file)
        yield key, _value(file, _number(file, "I"))


def _value(file: BinaryIO, kind: int) -> Any:
    """A scalar or a string; an array is passed over, since none of those that are long says what is in the file."""
    if kind in _SCALARS:
        return _number(file, _SCALARS[kind])
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        raise ValueError("unknown type of value")
    inner, count = _number(file, "I"), _number(file, "Q")
    if inner in _SCALARS:
        _taken(file, struct.calcsize(f"<{_SCALARS[inner]}") * count)
    else:
        for _ in range(count):
            _value(file, inner)
    return None


def _tensor(file: BinaryIO) -> Declared:
    """Where a tensor is, counted from where the data begin."""
    name, dims = _string(file), _number(file, "I")
    if dims > 8:
        raise ValueError("more dimensions than a tensor has")
    shape = tuple(_number(file, "Q") for _ in range(dims))[::-1]
    number, begin = _number(file, "I"), _number(file, "Q")
    dtype, block, size = _TYPES.get(number, (f"type {number}", 1, 0))
    return Declared(name, dtype, shape, begin, begin + math.prod(shape) // block * size)


def _number(file: BinaryIO, code: str) -> int:
    value: int = struct.unpack(f"<{code}", _taken(file, struct.calcsize(f"<{code}")))[0]
    return value


def _string(file: BinaryIO) -> str:
    return _taken(file, _number(file, "Q")).decode("utf-8", "replace")


def _taken(file: BinaryIO, size: int) -> bytes:
    found = file.read(size) if size <= MOST_BYTES else b""
    if len(found) != size:
        raise ValueError("the file ends inside its header")
    return found
