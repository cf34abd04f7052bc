"""The header of one GGUF file: metadata and tensors, checked against the file's length before a tensor is read."""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from backends.native.checkpoint.header import AGAIN, TensorEntry
from backends.native.errors import CheckpointError
from backends.native.kernels.reference.ggml_types import GgmlType, ggml_type

Value: TypeAlias = "int | float | bool | str | tuple[Value, ...] | LongArray"

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_DIMS = 4
KEPT_ITEMS = 1024
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
PLAIN_DTYPES = frozenset({"F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64"})


@dataclass(frozen=True)
class LongArray:
    """An array too long to keep, such as a vocabulary: only its length is known."""

    length: int


@dataclass(frozen=True)
class GgufTensor:
    """One tensor: `shape` counts elements, rows last but one; the byte range counts from the start of the file."""

    name: str
    ggml_type: GgmlType
    shape: tuple[int, ...]
    start_byte: int

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """`shape`, of which the last size counts bytes where the tensor is stored in blocks."""
        if self.ggml_type.name in PLAIN_DTYPES or not self.shape:
            return self.shape
        return (*self.shape[:-1], self.ggml_type.row_bytes(self.shape[-1]))

    @property
    def size_bytes(self) -> int:
        """Length of the byte range."""
        return math.prod(self.shape) // self.ggml_type.block_elements * self.ggml_type.block_bytes

    @property
    def entry(self) -> TensorEntry:
        """What a checkpoint lists."""
        end = self.start_byte + self.size_bytes
        return TensorEntry(self.name, self.ggml_type.name, self.stored_shape, self.start_byte, end)


@dataclass(frozen=True)
class GgufHeader:
    """Metadata by key, and the tensors in byte order."""

    path: Path
    metadata: dict[str, Value]
    tensors: tuple[GgufTensor, ...]


def read_gguf_header(path: Path) -> GgufHeader:
    """Parse the header; raises CheckpointError naming the file, and the key or tensor, that is wrong."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Parser(path, content).header()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be opened: {error.strerror}.", "check the path and the file's permissions"
        ) from error
    except ValueError as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is not a GGUF file: it is empty.", AGAIN) from error


class _Parser:
    """Reads numbers and strings one after the other, and knows what it was reading when the file ended."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path, self.content, self.position = path, content, 0
        self.reading = "the magic"

    def header(self) -> GgufHeader:
        if self.content[:4] != MAGIC:
            raise CheckpointError(
                f"{self.path} is not a GGUF file: it begins with {bytes(self.content[:4])!r}, expected {MAGIC!r}.",
                AGAIN,
            )
        self.position = 4
        version = self.whole("I")
        if version not in VERSIONS:
            order = " (big-endian)" if version & 0xFFFF == 0 else ""
            raise CheckpointError(
                f"{self.path} has GGUF version {version}{order}, expected {' or '.join(map(str, VERSIONS))}.",
                "convert the model again with a current converter, for a little-endian machine",
            )
        self.reading = "the counts"
        tensors, keys = self.whole("Q"), self.whole("Q")
        metadata = dict(self.pair(index, keys) for index in range(keys))
        declared = [self.tensor(index, tensors) for index in range(tensors)]
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise CheckpointError(f"{self.path}: general.alignment is {alignment!r}, expected a number above 0.", AGAIN)
        data_start = -(-self.position // alignment) * alignment
        return GgufHeader(self.path, metadata, self.placed(declared, data_start))

    def number(self, code: str) -> int | float | bool:
        size = struct.calcsize(f"<{code}")
        value: int | float | bool = struct.unpack(f"<{code}", self.taken(size))[0]
        return value

    def whole(self, code: str) -> int:
        return int(self.number(code))

    def taken(self, size: int) -> bytes:
        if self.position + size > len(self.content):
            raise CheckpointError(
                f"{self.path} is truncated: {self.reading} needs {self.position + size} bytes, the file has "
                f"{len(self.content)}.",
                AGAIN,
            )
        self.position += size
        return self.content[self.position - size : self.position]

    def string(self) -> str:
        return self.taken(self.whole("Q")).decode("utf-8", "replace")

    def pair(self, index: int, count: int) -> tuple[str, Value]:
        self.reading = f"metadata key {index + 1} of {count}"
        key = self.string()
        self.reading = f"metadata key {key}"
        return key, self.value(self.whole("I"))

    def value(self, kind: int) -> Value:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array(self.whole("I"), self.whole("Q"))
        raise CheckpointError(f"{self.path}: {self.reading} is of type {kind}, expected one from 0 to 12.", AGAIN)

    def array(self, kind: int, length: int) -> Value:
        if kind in _SCALARS:
            size = struct.calcsize(_SCALARS[kind])
            content = self.taken(size * length)
            return struct.unpack(f"<{length}{_SCALARS[kind]}", content) if length <= KEPT_ITEMS else LongArray(length)
        if length <= KEPT_ITEMS:
            return tuple(self.value(kind) for _ in range(length))
        for _ in range(length):
            self.value(kind)
        return LongArray(length)

    def tensor(self, index: int, count: int) -> GgufTensor:
        """`start_byte` still counts from where the data begin."""
        self.reading = f"the description of tensor {index + 1} of {count}"
        name = self.string()
        self.reading = f"the description of tensor {name}"
        dims = self.whole("I")
        if dims > MAX_DIMS:
            raise CheckpointError(f"{self.path}: tensor {name} has {dims} dimensions, expected at most 4.", AGAIN)
        shape = tuple(self.whole("Q") for _ in range(dims))[::-1]
        known = ggml_type(self.whole("I"), f"{self.path}: tensor {name}")
        if shape and shape[-1] % known.block_elements:
            raise CheckpointError(
                f"{self.path}: tensor {name} {list(shape)} is of type {known.name}, whose rows are whole blocks of "
                f"{known.block_elements} elements.",
                AGAIN,
            )
        return GgufTensor(name, known, shape, self.whole("Q"))

    def placed(self, declared: list[GgufTensor], data_start: int) -> tuple[GgufTensor, ...]:
        tensors = [replace(tensor, start_byte=data_start + tensor.start_byte) for tensor in declared]
        tensors.sort(key=lambda tensor: tensor.start_byte)
        end, before = data_start, "the header"
        for tensor in tensors:
            if tensor.start_byte < end:
                raise CheckpointError(
                    f"{self.path}: tensor {tensor.name} begins at byte {tensor.start_byte}, inside {before}, which "
                    f"ends at {end}.",
                    AGAIN,
                )
            end, before = tensor.start_byte + tensor.size_bytes, tensor.name
            if end > len(self.content):
                raise CheckpointError(
                    f"{self.path} is truncated: tensor {tensor.name} {tensor.ggml_type.name} {list(tensor.shape)} "
                    f"needs bytes {tensor.start_byte} to {end}, the file has {len(self.content)}.",
                    AGAIN,
                )
        return tuple(tensors)
