"""The two grouped products of fused experts: one launch each, over tokens sorted by expert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from backends.native.kernels.launch import launchable
from backends.native.kernels.triton.block_product import UNSCALED_INNER, block_product, inner_tile
from backends.native.kernels.triton.matrix_tiles import output_buffer
from backends.native.kernels.triton.token_sorting import SortedChoices

TILE_N = 64


@triton.jit  # type: ignore[untyped-decorator]
def gate_up_kernel(
    out: tl.tensor,
    x: tl.tensor,
    x_scale: tl.tensor,
    weight: tl.tensor,
    weight_scale: tl.tensor,
    slots: tl.tensor,
    experts: tl.tensor,
    choices: tl.tensor,
    num_experts: tl.tensor,
    n: tl.tensor,
    k: tl.tensor,
    tiles: tl.tensor,
    x_stride: tl.tensor,
    x_scale_stride: tl.tensor,
    expert_stride: tl.tensor,
    weight_stride: tl.tensor,
    expert_scale_stride: tl.tensor,
    weight_scale_stride: tl.tensor,
    top_k: tl.constexpr,
    group_n: tl.constexpr,
    group_k: tl.constexpr,
    tile_m: tl.constexpr,
    tile_n: tl.constexpr,
    tile_k: tl.constexpr,
    dtype: tl.constexpr,
) -> None:
    """`silu(gate) * up` of one expert for `tile_m` choices and `tile_n` of its `n` intermediate columns."""
    tile = tl.program_id(0) % tiles
    expert = tl.load(experts + tile)
    if expert >= num_experts:
        return
    slot = tl.load(slots + tile * tile_m + tl.arange(0, tile_m))
    is_row = slot < choices
    columns = (tl.program_id(0) // tiles).to(tl.int64) * tile_n + tl.arange(0, tile_n)
    is_column = columns < n
    weight += expert * expert_stride
    if weight_scale is not None:
        weight_scale += expert * expert_scale_stride
    gate = block_product(
        x, x_scale, weight, weight_scale, slot // top_k, is_row, columns, is_column, k,
        x_stride, x_scale_stride, weight_stride, weight_scale_stride, group_n, group_k, tile_k, dtype,
    )  # fmt: skip
    up = block_product(
        x, x_scale, weight, weight_scale, slot // top_k, is_row, columns + n, is_column, k,
        x_stride, x_scale_stride, weight_stride, weight_scale_stride, group_n, group_k, tile_k, dtype,
    )  # fmt: skip
    activated = gate / (1.0 + tl.exp(-gate)) * up
    is_inside = is_row[:, None] & is_column[None, :]
    tl.store(out + slot[:, None] * n + columns[None, :], activated.to(out.dtype.element_ty), mask=is_inside)


@triton.jit  # type: ignore[untyped-decorator]
def down_kernel(
    out: tl.tensor,
    x: tl.tensor,
    x_scale: tl.tensor,
    weight: tl.tensor,
    weight_scale: tl.tensor,
    slots: tl.tensor,
    experts: tl.tensor,
    topk_weights: tl.tensor,
    choices: tl.tensor,
    num_experts: tl.tensor,
    n: tl.tensor,
    k: tl.tensor,
    tiles: tl.tensor,
    x_stride: tl.tensor,
    x_scale_stride: tl.tensor,
    expert_stride: tl.tensor,
    weight_stride: tl.tensor,
    expert_scale_stride: tl.tensor,
    weight_scale_stride: tl.tensor,
    group_n: tl.constexpr,
    group_k: tl.constexpr,
    tile_m: tl.constexpr,
    tile_n: tl.constexpr,
    tile_k: tl.constexpr,
    dtype: tl.constexpr,
) -> None:
    """The product with one expert's down projection, times the weight of each choice."""
    tile = tl.program_id(0) % tiles
    expert = tl.load(experts + tile)
    if expert >= num_experts:
        return
    slot = tl.load(slots + tile * tile_m + tl.arange(0, tile_m))
    is_row = slot < choices
    columns = (tl.program_id(0) // tiles).to(tl.int64) * tile_n + tl.arange(0, tile_n)
    is_column = columns < n
    weight += expert * expert_stride
    if weight_scale is not None:
        weight_scale += expert * expert_scale_stride
    total = block_product(
        x, x_scale, weight, weight_scale, slot, is_row, columns, is_column, k,
        x_stride, x_scale_stride, weight_stride, weight_scale_stride, group_n, group_k, tile_k, dtype,
    )  # fmt: skip
    total *= tl.load(topk_weights + slot, mask=is_row, other=0.0).to(tl.float32)[:, None]
    is_inside = is_row[:, None] & is_column[None, :]
    tl.store(out + slot[:, None] * n + columns[None, :], total.to(out.dtype.element_ty), mask=is_inside)


@dataclass(frozen=True)
class Operands:
    """Inputs and stacked weights [experts, N, K] of a grouped product, with their scales or None.

    `block` is the weight's (block_n, block_k), and `dtype` the one in which tiles are multiplied.
    """

    x: Tensor
    x_scale: Tensor | None
    weight: Tensor
    weight_scale: Tensor | None
    dtype: Any
    block: tuple[int, int] = (1, UNSCALED_INNER)

    def strides(self) -> dict[str, int]:
        """In elements, as the kernels take them."""
        scale = self.weight_scale
        return {
            "x_stride": self.x.stride(0),
            "x_scale_stride": 0 if self.x_scale is None else self.x_scale.stride(0),
            "expert_stride": self.weight.stride(0),
            "weight_stride": self.weight.stride(1),
            "expert_scale_stride": 0 if scale is None else scale.stride(0),
            "weight_scale_stride": 0 if scale is None else scale.stride(1),
        }

    def tiling(self, choices: SortedChoices) -> dict[str, Any]:
        """Sizes that the kernels are compiled for."""
        return {
            "group_n": self.block[0],
            "group_k": self.block[1],
            "tile_m": choices.tile_m,
            "tile_n": TILE_N,
            "tile_k": inner_tile(self.x, self.block[1]),
            "dtype": self.dtype,
            "num_warps": 4,
            "num_stages": 3,
        }


def gate_up(like: Tensor, operands: Operands, choices: SortedChoices, count: int, top_k: int) -> Tensor:
    """`silu(gate) * up` [choices, intermediate] in the dtype of `like`; `operands.weight` is w13."""
    experts, doubled, inputs = operands.weight.shape
    intermediate = doubled // 2
    out = output_buffer(like, count, intermediate)
    launchable(gate_up_kernel, (choices.tiles * triton.cdiv(intermediate, TILE_N),))(
        out, operands.x, operands.x_scale, operands.weight, operands.weight_scale, choices.slots, choices.experts,
        count, experts, intermediate, inputs, choices.tiles,
        top_k=top_k, **operands.strides(), **operands.tiling(choices),
    )  # fmt: skip
    return out.to(like.dtype)


def down(like: Tensor, operands: Operands, choices: SortedChoices, topk_weights: Tensor) -> Tensor:
    """Weighted sums over each token's choices -> [tokens, hidden] in the dtype of `like`; `operands.weight` is w2."""
    experts, hidden, inputs = operands.weight.shape
    tokens, top_k = topk_weights.shape
    out = output_buffer(like, tokens, top_k, hidden)
    launchable(down_kernel, (choices.tiles * triton.cdiv(hidden, TILE_N),))(
        out, operands.x, operands.x_scale, operands.weight, operands.weight_scale, choices.slots, choices.experts,
        topk_weights.contiguous(), tokens * top_k, experts, hidden, inputs, choices.tiles,
        **operands.strides(), **operands.tiling(choices),
    )  # fmt: skip
    return out.sum(1).to(like.dtype)
