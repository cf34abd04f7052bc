"""Linear layers whose weight is stored in ggml blocks, which are dequantized tile by tile as they are multiplied."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from backends.native.kernels.launch import launchable
from backends.native.kernels.reference import gguf_linear as reference
from backends.native.kernels.triton.dequantize_gguf import known_type
from backends.native.kernels.triton.gguf_elements import ELEMENTS
from backends.native.kernels.triton.matrix_tiles import (
    dot_dtype,
    is_multiplied,
    output_buffer,
    rows_and_columns,
    rows_of_tile,
    store_tile,
    tile_count,
    with_whole_rows,
)

TILE_N, TILE_K = 64, 32


@triton.jit  # type: ignore[untyped-decorator]
def gguf_linear_kernel(
    out: tl.tensor,
    x: tl.tensor,
    blocks: tl.tensor,
    bias: tl.tensor,
    m: tl.tensor,
    n: tl.tensor,
    k: tl.tensor,
    x_stride: tl.tensor,
    row_bytes: tl.tensor,
    element: tl.constexpr,
    block_elements: tl.constexpr,
    block_bytes: tl.constexpr,
    tile_m: tl.constexpr,
    tile_n: tl.constexpr,
    tile_k: tl.constexpr,
    dtype: tl.constexpr,
) -> None:
    """A tile of the weight never leaves the program; `tile_k` divides every block."""
    rows, columns = rows_and_columns(tl.program_id(0), m, tile_m, tile_n)
    is_row, is_column = rows < m, columns < n
    total = tl.zeros((tile_m, tile_n), dtype=tl.float32)
    for start in range(0, k, tile_k):
        inner = start + tl.arange(0, tile_k)
        x_tile = tl.load(x + rows[:, None] * x_stride + inner[None, :], mask=is_row[:, None], other=0.0)
        block = blocks + columns[None, :] * row_bytes + (inner // block_elements * block_bytes)[:, None]
        place = tl.broadcast_to((inner % block_elements)[:, None], (tile_k, tile_n))
        weight = element(block, place, tl.broadcast_to(is_column[None, :], (tile_k, tile_n)))
        total = tl.dot(x_tile.to(dtype), weight.to(dtype), total, input_precision="ieee")
    store_tile(out, bias, total, rows, columns, m, n)


def gguf_linear(x: Tensor, qweight: Tensor, ggml_type: int, bias: Tensor | None) -> Tensor:
    """The reference's arguments and result, for the types of `dequantize_gguf`; others are the reference itself.

    In float32 both agree to 1e-5 of the largest output, in 16 bits to the rounding of the output.
    """
    known = known_type(qweight, ggml_type)
    if known is None or not is_multiplied(x) or not x.numel() or qweight.dim() != 2:
        return reference.gguf_linear(x, qweight, ggml_type, bias)
    tokens, rows = x.shape[0], qweight.shape[0]
    out, source, blocks = output_buffer(x, tokens, rows), with_whole_rows(x), with_whole_rows(qweight)
    tile_m = rows_of_tile(tokens)
    launchable(gguf_linear_kernel, (tile_count(tokens, rows, tile_m, TILE_N),))(
        out,
        source,
        blocks,
        bias,
        tokens,
        rows,
        known.columns(qweight.shape[1]),
        source.stride(0),
        blocks.stride(0),
        element=ELEMENTS[known.name],
        block_elements=known.block_elements,
        block_bytes=known.block_bytes,
        tile_m=tile_m,
        tile_n=TILE_N,
        tile_k=TILE_K,
        dtype=dot_dtype(x),
        num_warps=4,
        num_stages=2,
    )
    return out.to(x.dtype)
