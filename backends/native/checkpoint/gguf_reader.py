"""Reads the tensors of a GGUF file where they lie: views of the mapped file, without a copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from backends.native.checkpoint.gguf_header import PLAIN_DTYPES
from backends.native.checkpoint.header import TensorEntry
from backends.native.checkpoint.mapped import MappedFile

BYTES = "U8"


def iterate_gguf(path: Path, entries: tuple[TensorEntry, ...]) -> Iterator[tuple[str, Tensor]]:
    """Yield (name in the file, CPU tensor); one in blocks is uint8 [..., rows, row_bytes]."""
    mapped = MappedFile(path)
    for entry in entries:
        yield entry.name, mapped.tensor(entry if entry.dtype in PLAIN_DTYPES else replace(entry, dtype=BYTES))
