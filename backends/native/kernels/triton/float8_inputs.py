"""Inputs in e4m3, by a scale per token and group or by a given one; a program takes a group of several tokens."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from backends.native.kernels.launch import launchable
from backends.native.kernels.reference.fp8_linear import E4M3_MAX
from backends.native.kernels.triton.matrix_tiles import with_whole_rows
from backends.native.kernels.triton.small_floats import e4m3_codes

TILE_ELEMENTS = 2048
PER_WARP = 512


@triton.jit  # type: ignore[untyped-decorator]
def quantize_groups_kernel(
    quantized: tl.tensor,
    scales: tl.tensor,
    x: tl.tensor,
    given_scale: tl.tensor,
    tokens: tl.tensor,
    columns: tl.tensor,
    groups: tl.tensor,
    x_stride: tl.tensor,
    smallest_absmax: tl.constexpr,
    smallest_scale: tl.constexpr,
    largest: tl.constexpr,
    group_size: tl.constexpr,
    tile_tokens: tl.constexpr,
    tile_group: tl.constexpr,
) -> None:
    """Divisions are rounded as in torch, and e4m3 is rounded in integers: the results are the reference's bits."""
    program = tl.program_id(0)
    group = program % groups
    token = (program // groups).to(tl.int64) * tile_tokens + tl.arange(0, tile_tokens)
    place = tl.arange(0, tile_group)
    column = group * group_size + place
    is_token = token < tokens
    is_inside = is_token[:, None] & ((place < group_size) & (column < columns))[None, :]
    values = tl.load(x + token[:, None] * x_stride + column[None, :], mask=is_inside, other=0.0).to(tl.float32)
    if given_scale is None:
        absmax = tl.maximum(tl.max(tl.abs(values), axis=1), smallest_absmax)
        scale = tl.maximum(tl.div_rn(absmax, tl.full((tile_tokens,), largest, tl.float32)), smallest_scale)
        tl.store(scales + token * groups + group, scale, mask=is_token)
    else:
        scale = tl.broadcast_to(tl.load(given_scale).to(tl.float32), (tile_tokens,))
    codes = e4m3_codes(tl.div_rn(values, tl.broadcast_to(scale[:, None], (tile_tokens, tile_group))))
    tl.store(quantized + token[:, None] * columns + column[None, :], codes, mask=is_inside)


def _quantized(
    x: Tensor, group_size: int, scales: Tensor | None, given_scale: Tensor | None, absmax: float, scale: float
) -> Tensor:
    (tokens, columns), groups = x.shape, -(-x.shape[1] // group_size)
    quantized = x.new_empty(tokens, columns, dtype=torch.float8_e4m3fn)
    if not x.numel():
        return quantized
    source = with_whole_rows(x)
    tile_group = int(triton.next_power_of_2(group_size))
    tile_tokens = max(1, min(TILE_ELEMENTS // tile_group, int(triton.next_power_of_2(tokens))))
    launchable(quantize_groups_kernel, (groups * triton.cdiv(tokens, tile_tokens),))(
        quantized.view(torch.uint8),
        scales,
        source,
        given_scale,
        tokens,
        columns,
        groups,
        source.stride(0),
        smallest_absmax=absmax,
        smallest_scale=scale,
        largest=E4M3_MAX,
        group_size=group_size,
        tile_tokens=tile_tokens,
        tile_group=tile_group,
        num_warps=min(16, max(4, tile_tokens * tile_group // PER_WARP)),
    )
    return quantized


def quantize_groups(
    x: Tensor, group_size: int, *, smallest_absmax: float = 0.0, smallest_scale: float = 0.0
) -> tuple[Tensor, Tensor]:
    """`x` [tokens, K] -> e4m3 [tokens, K] and float32 scales [tokens, groups]; one of the limits must not be zero."""
    scales = x.new_empty(x.shape[0], -(-x.shape[1] // group_size), dtype=torch.float32)
    return _quantized(x, group_size, scales, None, smallest_absmax, smallest_scale), scales


def quantize_by_scale(x: Tensor, scale: Tensor) -> Tensor:
    """`x` [tokens, K] over a `scale` of one element, as e4m3, saturated."""
    return _quantized(x, min(TILE_ELEMENTS, max(1, x.shape[1])), None, scale, 0.0, 0.0)
