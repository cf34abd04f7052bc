"""Weights and inputs of float4_e2m1 in groups, for both kinds of scales: e4m3 and powers of two."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from backends.native.kernels.launch import launchable
from backends.native.kernels.reference.fp8_linear import E4M3_MAX
from backends.native.kernels.reference.nvfp4_linear import SMALLEST
from backends.native.kernels.reference.packing import E2M1_MAX
from backends.native.kernels.triton.matrix_tiles import (
    dot_dtype,
    output_buffer,
    rows_and_columns,
    rows_of_tile,
    store_tile,
    tile_count,
    with_whole_rows,
)
from backends.native.kernels.triton.small_floats import (
    e2m1_floats,
    e4m3_codes,
    e4m3_floats,
    e8m0_floats,
    rounded_to_e2m1,
)

TILE_N, TILE_BYTES = 64, 32
DEQUANTIZED_AT_ONCE = 1024
GROUPS_AT_ONCE = 32


@triton.jit  # type: ignore[untyped-decorator]
def scale_floats(raw: tl.tensor, is_e8m0: tl.constexpr) -> tl.tensor:
    """Stored scales, both as uint8, as float32."""
    if is_e8m0:
        return e8m0_floats(raw)
    return e4m3_floats(raw)


@triton.jit  # type: ignore[untyped-decorator]
def dequantize_float4_kernel(
    out: tl.tensor,
    weight: tl.tensor,
    scale: tl.tensor,
    global_scale: tl.tensor,
    columns: tl.tensor,
    weight_stride: tl.tensor,
    scale_stride: tl.tensor,
    group: tl.constexpr,
    is_e8m0: tl.constexpr,
    tile: tl.constexpr,
) -> None:
    """One program takes a part of one row; the scales are multiplied first, and the product is rounded once."""
    pieces = tl.cdiv(columns, tile)
    row = (tl.program_id(0) // pieces).to(tl.int64)
    column = tl.program_id(0) % pieces * tile + tl.arange(0, tile)
    is_inside = column < columns
    packed = tl.load(weight + row * weight_stride + column // 2, mask=is_inside, other=0)
    code = (packed >> (column % 2 * 4).to(tl.uint8)) & 15
    scales = scale_floats(tl.load(scale + row * scale_stride + column // group, mask=is_inside, other=0), is_e8m0)
    if global_scale is not None:
        scales *= tl.load(global_scale).to(tl.float32)
    tl.store(out + row * columns + column, (e2m1_floats(code) * scales).to(out.dtype.element_ty), mask=is_inside)


@triton.jit  # type: ignore[untyped-decorator]
def quantize_float4_kernel(
    out: tl.tensor,
    x: tl.tensor,
    global_scale: tl.tensor,
    columns: tl.tensor,
    x_stride: tl.tensor,
    group: tl.constexpr,
    groups: tl.constexpr,
    largest: tl.constexpr,
    largest_scale: tl.constexpr,
    smallest: tl.constexpr,
) -> None:
    """What is left of inputs after quantization, without `global_scale`, which may be None: then e8m0 scales."""
    pieces = tl.cdiv(columns, group * groups)
    row = (tl.program_id(0) // pieces).to(tl.int64)
    first = tl.program_id(0) % pieces * group * groups
    column = first + (tl.arange(0, groups) * group)[:, None] + tl.arange(0, group)[None, :]
    values = tl.load(x + row * x_stride + column, mask=column < columns, other=0.0).to(tl.float32)
    absmax = tl.max(tl.abs(values), axis=1)
    if global_scale is None:
        # The exponent of the absmax less that of the largest float4, 4.
        exponent = (absmax.to(tl.uint32, bitcast=True) >> 23).to(tl.int32) - 2
        scale = e8m0_floats(tl.minimum(tl.maximum(exponent, 0), 254))
        divisor = scale
    else:
        unit = tl.broadcast_to(tl.load(global_scale).to(tl.float32), (groups,))
        sixths = tl.div_rn(absmax, tl.full((groups,), largest, tl.float32))
        limited = tl.minimum(tl.div_rn(sixths, unit), largest_scale)
        scale = e4m3_floats(e4m3_codes(limited))
        divisor = tl.maximum(scale * unit, smallest)
    rounded = rounded_to_e2m1(tl.div_rn(values, tl.broadcast_to(divisor[:, None], (groups, group))))
    tl.store(out + row * columns + column, (rounded * scale[:, None]).to(out.dtype.element_ty), mask=column < columns)


@triton.jit  # type: ignore[untyped-decorator]
def float4_product_kernel(
    out: tl.tensor,
    x: tl.tensor,
    weight: tl.tensor,
    scale: tl.tensor,
    global_scale: tl.tensor,
    input_scale: tl.tensor,
    bias: tl.tensor,
    m: tl.tensor,
    n: tl.tensor,
    k: tl.tensor,
    x_stride: tl.tensor,
    weight_stride: tl.tensor,
    scale_stride: tl.tensor,
    group: tl.constexpr,
    is_e8m0: tl.constexpr,
    tile_m: tl.constexpr,
    tile_n: tl.constexpr,
    tile_bytes: tl.constexpr,
    dtype: tl.constexpr,
) -> None:
    """Even inputs meet the low nibbles of a byte, odd ones the high nibbles: two products, no interleaving.

    A float4 times its group's scale is exact in bfloat16 (for e4m3 in float16 too); float32 scales multiply the sums.
    """
    rows, columns = rows_and_columns(tl.program_id(0), m, tile_m, tile_n)
    is_row, is_column = rows < m, columns < n
    total = tl.zeros((tile_m, tile_n), dtype=tl.float32)
    for start in range(0, k // 2, tile_bytes):
        byte = start + tl.arange(0, tile_bytes)
        is_byte = byte < k // 2
        is_weight = is_byte[:, None] & is_column[None, :]
        packed = tl.load(weight + columns[None, :] * weight_stride + byte[:, None], mask=is_weight, other=0)
        stored = tl.load(
            scale + columns[None, :] * scale_stride + (byte // (group // 2))[:, None], mask=is_weight, other=0
        )
        scales = scale_floats(stored, is_e8m0)
        inputs = x + rows[:, None] * x_stride + 2 * byte[None, :]
        is_input = is_row[:, None] & is_byte[None, :]
        even = tl.load(inputs, mask=is_input, other=0.0).to(dtype)
        odd = tl.load(inputs + 1, mask=is_input, other=0.0).to(dtype)
        total = tl.dot(even, (e2m1_floats(packed & 15) * scales).to(dtype), total, input_precision="ieee")
        total = tl.dot(odd, (e2m1_floats(packed >> 4) * scales).to(dtype), total, input_precision="ieee")
    if global_scale is not None:
        total *= tl.load(global_scale).to(tl.float32)
    if input_scale is not None:
        total *= tl.load(input_scale).to(tl.float32)
    store_tile(out, bias, total, rows, columns, m, n)


def _bytes_of(scale: Tensor) -> Tensor:
    return with_whole_rows(scale).view(torch.uint8)


def dequantize_float4(
    weight: Tensor, scale: Tensor, global_scale: Tensor | None, group: int, dtype: torch.dtype
) -> Tensor:
    """uint8 [N, K / 2] with scales [N, K / group], e8m0 as uint8 or e4m3 -> [N, K] in `dtype`."""
    rows, columns = weight.shape[0], 2 * weight.shape[1]
    # The interpreter does not round to bfloat16 as a GPU does.
    out = weight.new_empty(rows, columns, dtype=torch.float32 if weight.is_cpu else dtype)
    tile = min(DEQUANTIZED_AT_ONCE, int(triton.next_power_of_2(columns)))
    weight = with_whole_rows(weight)
    launchable(dequantize_float4_kernel, (rows * triton.cdiv(columns, tile),))(
        out,
        weight,
        _bytes_of(scale),
        global_scale,
        columns,
        weight.stride(0),
        _bytes_of(scale).stride(0),
        group=group,
        is_e8m0=scale.dtype == torch.uint8,
        tile=tile,
    )
    return out.to(dtype)


def quantized_inputs(x: Tensor, global_scale: Tensor | None, group: int) -> Tensor:
    """What is left of `x` [tokens, K] after quantization in groups, less `global_scale`: exact in bfloat16."""
    tokens, columns = x.shape
    out = x.new_empty(x.shape, dtype=torch.float32 if x.is_cpu else torch.bfloat16)
    source = with_whole_rows(x)
    groups = min(GROUPS_AT_ONCE, int(triton.next_power_of_2(columns // group)))
    launchable(quantize_float4_kernel, (tokens * triton.cdiv(columns, group * groups),))(
        out,
        source,
        global_scale,
        columns,
        source.stride(0),
        group=group,
        groups=groups,
        largest=E2M1_MAX,
        largest_scale=E4M3_MAX,
        smallest=SMALLEST,
    )
    return out


def float4_product(
    like: Tensor,
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    *,
    group: int,
    global_scale: Tensor | None = None,
    input_scale: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """`x` [tokens, K], plain or by `quantized_inputs`, times the weight -> [tokens, N] in the dtype of `like`."""
    (tokens, inputs), outputs = x.shape, weight.shape[0]
    x, weight, stored = with_whole_rows(x), with_whole_rows(weight), _bytes_of(scale)
    out, tile_m = output_buffer(like, tokens, outputs), rows_of_tile(tokens)
    dtype: Any = dot_dtype(x)
    launchable(float4_product_kernel, (tile_count(tokens, outputs, tile_m, TILE_N),))(
        out,
        x,
        weight,
        stored,
        global_scale,
        input_scale,
        bias,
        tokens,
        outputs,
        inputs,
        x.stride(0),
        weight.stride(0),
        stored.stride(0),
        group=group,
        is_e8m0=scale.dtype == torch.uint8,
        tile_m=tile_m,
        tile_n=TILE_N,
        tile_bytes=TILE_BYTES,
        dtype=dtype,
        num_warps=4,
        num_stages=3,
    )
    return out.to(like.dtype)
