"""Inputs as int8 per token or by a given scale, and int8 products with exact int32 sums."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from backends.native.kernels.launch import launchable
from backends.native.kernels.reference.int8_linear import INT8_MAX, SMALLEST_SCALE
from backends.native.kernels.triton.matrix_tiles import (
    output_buffer,
    rows_and_columns,
    rows_of_tile,
    store_tile,
    tile_count,
    with_whole_rows,
)
from backends.native.kernels.triton.small_floats import rounded_to_even

TILE_N, TILE_K = 64, 128
QUANTIZED_AT_ONCE = 1024
LONGEST_SUM = 2**31 // 128**2
"""Inputs of a layer whose int32 sums cannot overflow."""


@triton.jit  # type: ignore[untyped-decorator]
def quantize_tokens_kernel(
    quantized: tl.tensor,
    scales: tl.tensor,
    x: tl.tensor,
    columns: tl.tensor,
    x_stride: tl.tensor,
    largest: tl.constexpr,
    smallest_scale: tl.constexpr,
    tile: tl.constexpr,
) -> None:
    """One program reads a token twice: for its absmax, and to divide by the scale that follows."""
    token = tl.program_id(0).to(tl.int64)
    absmax = tl.zeros((tile,), dtype=tl.float32)
    for start in range(0, columns, tile):
        column = start + tl.arange(0, tile)
        values = tl.load(x + token * x_stride + column, mask=column < columns, other=0.0).to(tl.float32)
        absmax = tl.maximum(absmax, tl.abs(values))
    whole = tl.broadcast_to(tl.max(absmax, axis=0), (tile,))
    scale = tl.maximum(tl.div_rn(whole, tl.full((tile,), largest, tl.float32)), smallest_scale)
    for start in range(0, columns, tile):
        column = start + tl.arange(0, tile)
        values = tl.load(x + token * x_stride + column, mask=column < columns, other=0.0).to(tl.float32)
        codes = rounded_to_even(tl.div_rn(values, scale)).to(tl.int8)
        tl.store(quantized + token * columns + column, codes, mask=column < columns)
    tl.store(scales + token, tl.max(scale, axis=0))


@triton.jit  # type: ignore[untyped-decorator]
def quantize_by_scale_kernel(
    quantized: tl.tensor,
    x: tl.tensor,
    scale: tl.tensor,
    zero_point: tl.tensor,
    columns: tl.tensor,
    x_stride: tl.tensor,
    largest: tl.constexpr,
    tile: tl.constexpr,
) -> None:
    """`x / scale + zero_point`, rounded before the zero point is added, and saturated."""
    pieces = tl.cdiv(columns, tile)
    token = (tl.program_id(0) // pieces).to(tl.int64)
    column = tl.program_id(0) % pieces * tile + tl.arange(0, tile)
    values = tl.load(x + token * x_stride + column, mask=column < columns, other=0.0).to(tl.float32)
    divided = tl.div_rn(values, tl.broadcast_to(tl.load(scale).to(tl.float32), (tile,)))
    # Rounding by addition is exact for small numbers only; the others saturate.
    rounded = rounded_to_even(divided)
    if zero_point is not None:
        rounded += tl.load(zero_point).to(tl.float32)
    codes = tl.minimum(tl.maximum(rounded, -largest - 1.0), largest + 0.0).to(tl.int8)
    tl.store(quantized + token * columns + column, codes, mask=column < columns)


def quantize_tokens(x: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [tokens, K] and float32 scales [tokens, 1]; the bits of the reference."""
    (tokens, columns), source = x.shape, with_whole_rows(x)
    quantized, scales = x.new_empty(x.shape, dtype=torch.int8), x.new_empty(tokens, 1, dtype=torch.float32)
    tile = min(QUANTIZED_AT_ONCE, int(triton.next_power_of_2(columns)))
    launchable(quantize_tokens_kernel, (tokens,))(
        quantized,
        scales,
        source,
        columns,
        source.stride(0),
        largest=INT8_MAX,
        smallest_scale=SMALLEST_SCALE,
        tile=tile,
    )
    return quantized, scales


def quantize_by_scale(x: Tensor, scale: Tensor, zero_point: Tensor | None) -> Tensor:
    """int8 [tokens, K] with `scale` and `zero_point` of one element; the bits of the reference."""
    (tokens, columns), source = x.shape, with_whole_rows(x)
    quantized = x.new_empty(x.shape, dtype=torch.int8)
    tile = min(QUANTIZED_AT_ONCE, int(triton.next_power_of_2(columns)))
    launchable(quantize_by_scale_kernel, (tokens * triton.cdiv(columns, tile),))(
        quantized, source, scale, zero_point, columns, source.stride(0), largest=INT8_MAX, tile=tile
    )
    return quantized


@triton.jit  # type: ignore[untyped-decorator]
def int8_product_kernel(
    out: tl.tensor,
    x: tl.tensor,
    x_scale: tl.tensor,
    zero_point: tl.tensor,
    weight: tl.tensor,
    weight_scale: tl.tensor,
    weight_offset: tl.tensor,
    integer_bias: tl.tensor,
    bias: tl.tensor,
    m: tl.tensor,
    n: tl.tensor,
    k: tl.tensor,
    x_stride: tl.tensor,
    weight_stride: tl.tensor,
    x_scale_stride: tl.tensor,
    weight_scale_stride: tl.tensor,
    tile_m: tl.constexpr,
    tile_n: tl.constexpr,
    tile_k: tl.constexpr,
) -> None:
    """Exact int32 sums of products, of inputs and of weights; what is None is not there and costs nothing."""
    rows, columns = rows_and_columns(tl.program_id(0), m, tile_m, tile_n)
    is_row, is_column = rows < m, columns < n
    total = tl.zeros((tile_m, tile_n), dtype=tl.int32)
    x_sum, weight_sum = tl.zeros((tile_m,), dtype=tl.int32), tl.zeros((tile_n,), dtype=tl.int32)
    for start in range(0, k, tile_k):
        inner = start + tl.arange(0, tile_k)
        is_inner = inner < k
        x_tile = tl.load(
            x + rows[:, None] * x_stride + inner[None, :], mask=is_row[:, None] & is_inner[None, :], other=0
        )
        weight_tile = tl.load(
            weight + columns[None, :] * weight_stride + inner[:, None],
            mask=is_inner[:, None] & is_column[None, :],
            other=0,
        )
        total = tl.dot(x_tile, weight_tile, total, out_dtype=tl.int32)
        if weight_offset is not None:
            x_sum += tl.sum(x_tile.to(tl.int32), axis=1)
        if zero_point is not None:
            weight_sum += tl.sum(weight_tile.to(tl.int32), axis=0)
    if integer_bias is not None:
        total += tl.load(integer_bias + columns, mask=is_column, other=0)[None, :]
    exact = total.to(tl.float32)
    inputs = x_sum.to(tl.float32)
    if zero_point is not None:
        zero = tl.load(zero_point).to(tl.float32)
        exact = (total - (zero.to(tl.int32) * weight_sum)[None, :]).to(tl.float32)
        inputs = inputs - zero * k
    if weight_offset is not None:
        offset = tl.load(weight_offset + columns * weight_scale_stride, mask=is_column, other=0.0).to(tl.float32)
        exact -= inputs[:, None] * offset[None, :]
    if x_scale is not None:
        exact *= tl.load(x_scale + rows * x_scale_stride, mask=is_row, other=0.0)[:, None]
    scale = tl.load(weight_scale + columns * weight_scale_stride, mask=is_column, other=0.0).to(tl.float32)
    store_tile(out, bias, exact * scale[None, :], rows, columns, m, n)


def int8_product(
    like: Tensor,
    quantized: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    *,
    x_scale: Tensor | None = None,
    zero_point: Tensor | None = None,
    weight_offset: Tensor | None = None,
    integer_bias: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """int8 [tokens, K] times int8 [N, K], corrected and scaled -> [tokens, N] in the dtype of `like`.

    `x_scale` has one element or one per token, `weight_scale` and `weight_offset` both one or one per output.
    """
    (tokens, inputs), outputs, weight = quantized.shape, weight.shape[0], with_whole_rows(weight)
    out, tile_m = output_buffer(like, tokens, outputs), rows_of_tile(tokens)
    launchable(int8_product_kernel, (tile_count(tokens, outputs, tile_m, TILE_N),))(
        out, quantized, x_scale, zero_point, weight, weight_scale.contiguous(),
        None if weight_offset is None else weight_offset.expand_as(weight_scale).contiguous(), integer_bias, bias,
        tokens, outputs, inputs, quantized.stride(0), weight.stride(0),
        0 if x_scale is None else int(x_scale.numel() > 1), int(weight_scale.numel() > 1),
        tile_m=tile_m, tile_n=TILE_N, tile_k=TILE_K, num_warps=4, num_stages=3,
    )  # fmt: skip
    return out.to(like.dtype)
