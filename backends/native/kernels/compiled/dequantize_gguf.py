"""Turns blocks of the usual ggml types into numbers, in C."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.native.kernels.compiled.library import function
from backends.native.kernels.compiled.overload import compiled_op
from backends.native.kernels.compiled.rows import Int64, address, code_of, in_shares, new_output
from backends.native.kernels.reference.dequantize_gguf import dequantize_gguf as reference
from backends.native.kernels.reference.ggml_types import GGML_TYPES

IN_C = frozenset(
    ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4")
)


@compiled_op
def dequantize_gguf(blocks: Tensor, ggml_type: int, dtype: torch.dtype) -> Tensor:
    """uint8 [rows, row_bytes] of a ggml type, by its number -> [rows, columns] in `dtype`, rounded once from float32.

    Types that are not `IN_C`, and blocks that are not whole, go to the reference, which raises what is wrong with them.
    """
    known = GGML_TYPES.get(ggml_type)
    is_fit = blocks.is_cpu and blocks.dtype == torch.uint8 and blocks.dim() > 0 and known is not None
    if not is_fit or known is None or known.name not in IN_C or blocks.shape[-1] % known.block_bytes:
        return reference(blocks, ggml_type, dtype)
    run = function(f"dequantize_{known.name.lower()}")
    if run is None:
        return reference(blocks, ggml_type, dtype)
    flat = blocks.reshape(-1, known.block_bytes).contiguous()
    output = new_output(flat, flat.shape[0], known.block_elements, dtype)
    code = code_of(output.dtype)

    def share(start: int, count: int) -> None:
        run(address(flat, start), Int64(count), address(output, start), code)

    in_shares(flat.shape[0], output, share)
    return output.to(dtype).view(*blocks.shape[:-1], known.columns(blocks.shape[-1]))
