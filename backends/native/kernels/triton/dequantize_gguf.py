"""Turns ggml blocks into numbers; a program takes neighbouring elements, whatever their blocks."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from backends.native.kernels.launch import launchable
from backends.native.kernels.reference import dequantize_gguf as reference
from backends.native.kernels.reference.ggml_types import GGML_TYPES, GgmlType
from backends.native.kernels.triton.gguf_elements import ELEMENTS

TILE = 1024


@triton.jit  # type: ignore[untyped-decorator]
def dequantize_kernel(
    out: tl.tensor,
    blocks: tl.tensor,
    count: tl.tensor,
    element: tl.constexpr,
    block_elements: tl.constexpr,
    block_bytes: tl.constexpr,
    tile: tl.constexpr,
) -> None:
    """`element` is a function of `gguf_elements`; its float32 is rounded once."""
    number = tl.program_id(0).to(tl.int64) * tile + tl.arange(0, tile)
    is_inside = number < count
    place = (number % block_elements).to(tl.int32)
    value = element(blocks + number // block_elements * block_bytes, place, is_inside)
    tl.store(out + number, value.to(out.dtype.element_ty), mask=is_inside)


def known_type(blocks: Tensor, ggml_type: int) -> GgmlType | None:
    """The type, if there is a triton function for it and `blocks` are whole rows of it."""
    known = GGML_TYPES.get(ggml_type)
    if known is None or known.name not in ELEMENTS or blocks.dtype != torch.uint8 or not blocks.numel():
        return None
    return None if blocks.shape[-1] % known.block_bytes else known


def dequantize_gguf(blocks: Tensor, ggml_type: int, dtype: torch.dtype) -> Tensor:
    """The reference's arguments and results: in float32 bit for bit, on a GPU in 16 bits too.

    For Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, IQ4_NL, IQ4_XS and MXFP4; other types and empty tensors are the
    reference itself, and so are its errors.
    """
    known = known_type(blocks, ggml_type)
    if known is None:
        return reference.dequantize_gguf(blocks, ggml_type, dtype)
    shape = (*blocks.shape[:-1], known.columns(blocks.shape[-1]))
    # The interpreter does not round to bfloat16 as a GPU does.
    out = blocks.new_empty(shape, dtype=torch.float32 if blocks.is_cpu else dtype)
    launchable(dequantize_kernel, (triton.cdiv(out.numel(), TILE),))(
        out,
        blocks.contiguous(),
        out.numel(),
        element=ELEMENTS[known.name],
        block_elements=known.block_elements,
        block_bytes=known.block_bytes,
        tile=TILE,
    )
    return out.to(dtype)
