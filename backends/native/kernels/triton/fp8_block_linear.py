"""Linear layers in e4m3 blocks, with plain inputs or inputs quantized per token and group."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from backends.native.kernels.launch import launchable
from backends.native.kernels.reference import fp8_block_linear as reference
from backends.native.kernels.triton.block_product import block_product, inner_tile, plain_operands
from backends.native.kernels.triton.matrix_tiles import (
    is_multiplied,
    output_buffer,
    rows_and_columns,
    rows_of_tile,
    store_tile,
    tile_count,
    with_whole_rows,
)

TILE_N = 64


@triton.jit  # type: ignore[untyped-decorator]
def block_linear_kernel(
    out: tl.tensor,
    x: tl.tensor,
    x_scale: tl.tensor,
    weight: tl.tensor,
    weight_scale: tl.tensor,
    bias: tl.tensor,
    m: tl.tensor,
    n: tl.tensor,
    k: tl.tensor,
    x_stride: tl.tensor,
    x_scale_stride: tl.tensor,
    weight_stride: tl.tensor,
    weight_scale_stride: tl.tensor,
    group_n: tl.constexpr,
    group_k: tl.constexpr,
    tile_m: tl.constexpr,
    tile_n: tl.constexpr,
    tile_k: tl.constexpr,
    dtype: tl.constexpr,
) -> None:
    """One program computes one tile of the output; e4m3 is exact in every dtype of the product, scales are float32."""
    rows, columns = rows_and_columns(tl.program_id(0), m, tile_m, tile_n)
    total = block_product(
        x,
        x_scale,
        weight,
        weight_scale,
        rows,
        rows < m,
        columns,
        columns < n,
        k,
        x_stride,
        x_scale_stride,
        weight_stride,
        weight_scale_stride,
        group_n,
        group_k,
        tile_k,
        dtype,
    )
    store_tile(out, bias, total, rows, columns, m, n)


def launch(
    x: Tensor,
    inputs: Tensor,
    input_scale: Tensor | None,
    weight: Tensor,
    weight_scale: Tensor,
    block: list[int],
    bias: Tensor | None,
    dtype: tl.tensor,
) -> Tensor:
    """`inputs`, which are `x` or what it was quantized to, times the weight -> [tokens, N] in the dtype of `x`."""
    tokens, outputs = x.shape[0], weight.shape[0]
    out = output_buffer(x, tokens, outputs)
    inputs, weight, weight_scale = (with_whole_rows(tensor) for tensor in (inputs, weight, weight_scale))
    tile_m = rows_of_tile(tokens)
    if out.numel():
        launchable(block_linear_kernel, (tile_count(tokens, outputs, tile_m, TILE_N),))(
            out,
            inputs,
            input_scale,
            weight,
            weight_scale,
            bias,
            tokens,
            outputs,
            x.shape[1],
            inputs.stride(0),
            0 if input_scale is None else input_scale.stride(0),
            weight.stride(0),
            weight_scale.stride(0),
            group_n=block[0],
            group_k=block[1],
            tile_m=tile_m,
            tile_n=TILE_N,
            tile_k=inner_tile(inputs, block[1]),
            dtype=dtype,
            num_warps=4,
            num_stages=3,
        )
    return out.to(x.dtype)


def fp8_block_linear(x: Tensor, weight: Tensor, scale: Tensor, block: list[int], bias: Tensor | None) -> Tensor:
    """The reference's arguments and result; weight-only, for blocks of any size.

    The weight is not rounded to the dtype of `x` before it is multiplied, as it is in the reference: scales multiply
    the float32 sums. In float32 both agree to 1e-5 of the largest output, in 16 bits to the rounding of `x`.
    """
    if not is_multiplied(x):
        return reference.fp8_block_linear(x, weight, scale, block, bias)
    inputs, weight, dtype = plain_operands(x, weight)
    return launch(x, inputs, None, weight, scale, block, bias, dtype)
