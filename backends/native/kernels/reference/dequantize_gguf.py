"""Turns blocks of any ggml type into numbers, bit for bit as the library gguf does."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.native.errors import ShapeError
from backends.native.kernels.op import reference_op
from backends.native.kernels.reference.ggml_types import BF16, F16, F32, GGML_TYPES, GgmlType, cannot_be_dequantized
from backends.native.kernels.reference.gguf_fp4 import FP4
from backends.native.kernels.reference.gguf_i_quants import I_QUANTS
from backends.native.kernels.reference.gguf_k_quants import K_QUANTS
from backends.native.kernels.reference.gguf_legacy import LEGACY
from backends.native.kernels.reference.gguf_ternary import TERNARY

BLOCK_FUNCTIONS = {**LEGACY, **K_QUANTS, **I_QUANTS, **TERNARY, **FP4}
"""By the name of a type: uint8 [blocks, block_bytes] -> float32 [blocks, block_elements]."""
FLOATS = {F32: torch.float32, F16: torch.float16, BF16: torch.bfloat16}
CHUNK_ELEMENTS = 1 << 20
"""The steps of a block take several times its size; a bound on them keeps a large tensor from needing that at once."""


@reference_op
def dequantize_gguf(blocks: Tensor, ggml_type: int, dtype: torch.dtype) -> Tensor:
    """uint8 [rows, row_bytes] of a ggml type, by its number -> [rows, columns] in `dtype`, rounded once from float32.

    Raises KernelError for a type that cannot be dequantized, ShapeError for rows that are no whole blocks.
    """
    known = GGML_TYPES.get(ggml_type)
    if known is None or not (known.name in BLOCK_FUNCTIONS or ggml_type in FLOATS):
        raise cannot_be_dequantized(ggml_type)
    if blocks.dtype != torch.uint8 or blocks.dim() == 0 or blocks.shape[-1] % known.block_bytes:
        raise ShapeError(
            f"blocks of {known.name} are {blocks.dtype} {list(blocks.shape)}, expected torch.uint8 rows of whole "
            f"blocks of {known.block_bytes} bytes.",
            "compare the tensor's type with its size on disk",
        )
    if ggml_type in FLOATS:
        return blocks.clone(memory_format=torch.contiguous_format).view(FLOATS[ggml_type]).to(dtype)
    return _dequantized(blocks, known, dtype)


def _dequantized(blocks: Tensor, known: GgmlType, dtype: torch.dtype) -> Tensor:
    shape = (*blocks.shape[:-1], known.columns(blocks.shape[-1]))
    flat = blocks.reshape(-1, known.block_bytes)
    output = torch.empty(flat.shape[0], known.block_elements, dtype=dtype, device=blocks.device)
    step = CHUNK_ELEMENTS // known.block_elements
    for start in range(0, flat.shape[0], step):
        output[start : start + step] = BLOCK_FUNCTIONS[known.name](flat[start : start + step])
    return output.view(shape)
