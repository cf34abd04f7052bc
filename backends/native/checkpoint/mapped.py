"""Tensors of a file as views of one private mapping: what is not looked at is not read, and nothing is copied."""

from __future__ import annotations

import mmap
from pathlib import Path

import torch
from torch import Tensor

from backends.native.checkpoint.header import AGAIN, TensorEntry
from backends.native.errors import CheckpointError

_TORCH_NAMES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu", "U16": "uint16", "I16": "int16", "F16": "float16", "BF16": "bfloat16", "U32": "uint32",
    "I32": "int32", "F32": "float32", "U64": "uint64", "I64": "int64", "F64": "float64", "F4": "float4_e2m1fn_x2",
}  # fmt: skip
DTYPES = {name: dtype for name, spelled in _TORCH_NAMES.items() if (dtype := getattr(torch, spelled, None)) is not None}
"""Of safetensors' names for dtypes those that this torch has."""
PAIRS = "F4"


class MappedFile:
    """A file's bytes in memory, read when they are looked at; they stay while a tensor made from them lives.

    Writing into such a tensor changes neither the file nor what another process sees. Linux ends a process that looks
    at bytes which were cut off the file after it was mapped.
    """

    def __init__(self, path: Path) -> None:
        """Raises CheckpointError where the file cannot be mapped."""
        self.path = path
        # Without a reservation: a file may be larger than memory, and its pages need not be kept there.
        flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0)
        try:
            with path.open("rb") as file:
                self.bytes = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be mapped into memory: {error}.", AGAIN) from error
        self.size_bytes = len(self.bytes)
        self._whole: dict[str, Tensor] = {}

    def tensor(self, entry: TensorEntry) -> Tensor:
        """The CPU tensor that `entry` describes, float4 in pairs as torch has them.

        Raises CheckpointError where it lies outside of the file, has another size than its shape, or a dtype that this
        torch does not know.
        """
        whole = self._whole.get(entry.dtype)
        if whole is None:
            whole = self._whole[entry.dtype] = self._as_elements(entry)
        shape = entry.shape if entry.dtype != PAIRS else _in_pairs(entry.shape)
        start, end, size = entry.start_byte, entry.end_byte, whole.itemsize
        strides, count = _contiguous(shape)
        if not 0 <= start <= end <= self.size_bytes or end - start != count * size or min(shape, default=0) < 0:
            raise CheckpointError(
                f"{self.path}: tensor {entry.name} {entry.dtype} {list(entry.shape)} lies at bytes {start} to {end} of "
                f"{self.size_bytes}.",
                AGAIN,
            )
        if start % size:
            content = torch.frombuffer(self.bytes, dtype=torch.uint8)[start:end]
            return content.clone().view(whole.dtype).view(shape)
        # One operation where slicing and viewing are three: small tensors are read by the ten thousand.
        return whole.as_strided(shape, strides, start // size)

    def _as_elements(self, entry: TensorEntry) -> Tensor:
        """The whole file as elements of the entry's dtype, without the bytes that are left at its end."""
        dtype = DTYPES.get(entry.dtype)
        if dtype is None:
            raise CheckpointError(
                f"{self.path}: tensor {entry.name} is {entry.dtype}, which torch {torch.__version__} does not have.",
                "install a newer torch",
            )
        size_bytes = self.size_bytes // dtype.itemsize * dtype.itemsize
        return torch.frombuffer(self.bytes, dtype=torch.uint8, count=size_bytes).view(dtype)


def _contiguous(shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Strides and number of elements."""
    if len(shape) == 2:
        return (shape[1], 1), shape[0] * shape[1]
    strides, count = [1] * len(shape), 1
    for dim in range(len(shape) - 1, -1, -1):
        strides[dim] = count
        count *= shape[dim]
    return tuple(strides), count


def _in_pairs(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-1], shape[-1] // 2) if shape else shape
