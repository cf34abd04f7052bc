"""The weights iterator: every tensor of a checkpoint with its name, read once."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from backends.native.checkpoint.gguf_files import SUFFIX
from backends.native.checkpoint.gguf_reader import iterate_gguf
from backends.native.checkpoint.index import Checkpoint
from backends.native.checkpoint.mapped import MappedFile


def iterate_weights(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    """Yield (name on disk, CPU tensor in the stored dtype), file by file in byte order.

    What a GGUF file has in blocks is uint8 [..., rows, row_bytes], under the name in that file.
    """
    for file in checkpoint.files:
        if file.path.suffix == SUFFIX:
            yield from iterate_gguf(file.path, file.entries)
            continue
        mapped = MappedFile(file.path)
        for entry in file.entries:
            yield entry.name, mapped.tensor(entry)
