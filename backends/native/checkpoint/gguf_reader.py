"""Reads the tensors of a GGUF file where they lie: views of the mapped file, without a copy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from backends.native.checkpoint.header import TensorEntry

DTYPES = {
    "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64,
    "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
}  # fmt: skip


def iterate_gguf(path: Path, entries: tuple[TensorEntry, ...]) -> Iterator[tuple[str, Tensor]]:
    """Yield (name in the file, CPU tensor); one in blocks is uint8 [..., rows, row_bytes].

    The tensors are views of one private mapping, which lives as long as one of them.
    """
    mapped = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8, device="cpu")
    for entry in entries:
        yield entry.name, _viewed(mapped[entry.start_byte : entry.end_byte], entry)


def _viewed(content: Tensor, entry: TensorEntry) -> Tensor:
    dtype = DTYPES.get(entry.dtype, torch.uint8)
    if content.storage_offset() % dtype.itemsize:
        content = content.clone()
    return content.view(dtype).view(entry.shape)
