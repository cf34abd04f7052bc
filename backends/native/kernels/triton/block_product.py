"""The tile of a product whose operands may be e4m3 with scales per group of inputs or block of weights."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from backends.devices.placement import device_of_type
from backends.native.kernels.triton.matrix_tiles import dot_dtype
from backends.native.kernels.triton.small_floats import e4m3_floats

LARGEST_INNER, SMALLEST_INNER = 128, 32
UNSCALED_INNER = 64


@triton.jit  # type: ignore[untyped-decorator]
def operand(raw: tl.tensor, dtype: tl.constexpr) -> tl.tensor:
    """Loaded elements in the dtype of the product; uint8 are codes of e4m3, whose values all of them hold exactly."""
    if raw.dtype == tl.uint8:
        return e4m3_floats(raw).to(dtype)
    return raw.to(dtype)


@triton.jit  # type: ignore[untyped-decorator]
def block_product(
    x: tl.tensor,
    x_scale: tl.tensor,
    weight: tl.tensor,
    weight_scale: tl.tensor,
    rows: tl.tensor,
    is_row: tl.tensor,
    columns: tl.tensor,
    is_column: tl.tensor,
    k: tl.tensor,
    x_stride: tl.tensor,
    x_scale_stride: tl.tensor,
    weight_stride: tl.tensor,
    weight_scale_stride: tl.tensor,
    group_n: tl.constexpr,
    group_k: tl.constexpr,
    tile_k: tl.constexpr,
    dtype: tl.constexpr,
) -> tl.tensor:
    """float32 `x[rows] @ weight[columns].T`; each scale is None or multiplies the sum over its group of inputs.

    A step of the loop never crosses the edge of a group, so that `group_k` may be any size.
    """
    steps: tl.constexpr = (group_k + tile_k - 1) // tile_k
    total = tl.zeros((rows.shape[0], columns.shape[0]), dtype=tl.float32)
    for step in range(tl.cdiv(k, group_k) * steps):
        group = step // steps
        inner = group * group_k + (step % steps) * tile_k + tl.arange(0, tile_k)
        is_inner = inner < tl.minimum(k, (group + 1) * group_k)
        x_tile = tl.load(
            x + rows[:, None] * x_stride + inner[None, :], mask=is_row[:, None] & is_inner[None, :], other=0.0
        )
        weight_tile = tl.load(
            weight + columns[None, :] * weight_stride + inner[:, None],
            mask=is_inner[:, None] & is_column[None, :],
            other=0.0,
        )
        part = tl.dot(operand(x_tile, dtype), operand(weight_tile, dtype), input_precision="ieee")
        if x_scale is not None:
            part *= tl.load(x_scale + rows * x_scale_stride + group, mask=is_row, other=0.0)[:, None]
        if weight_scale is not None:
            scales = weight_scale + (columns // group_n) * weight_scale_stride + group
            part *= tl.load(scales, mask=is_column, other=0.0)[None, :]
        total += part
    return total


def inner_tile(x: Tensor, group_k: int) -> int:
    """A power of two from 32 to 128, no larger than a group needs; small for float32, whose tiles fill a GPU sooner."""
    largest = SMALLEST_INNER if x.dtype == torch.float32 and not x.is_cpu else LARGEST_INNER
    return min(largest, max(SMALLEST_INNER, int(triton.next_power_of_2(group_k))))


def multiplies_float8(x: Tensor) -> bool:
    """Whether the device of `x` multiplies e4m3 by itself; otherwise the codes become wider floats first."""
    return device_of_type(x.device.type).multiplies_float8(x.device.index or 0)


def float8_operands(x: Tensor, quantized: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Any]:
    """Quantized inputs and weight as the kernel takes them, and the dtype of their product; `x` is not quantized."""
    if multiplies_float8(x):
        return quantized, weight, tl.float8e4nv
    # Float16 and bfloat16 both hold e4m3 exactly.
    dtype = tl.float32 if x.is_cpu else tl.bfloat16
    return quantized.view(torch.uint8), weight.view(torch.uint8), dtype


def plain_operands(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Any]:
    """Inputs as they are and an e4m3 or plain weight as the kernel takes them, and the dtype of their product."""
    is_float8 = weight.dtype == torch.float8_e4m3fn
    return x, weight.view(torch.uint8) if is_float8 else weight, dot_dtype(x)
