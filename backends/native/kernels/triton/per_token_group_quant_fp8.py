"""Activations in e4m3 with one float32 scale per token and group; a program takes the same group of several tokens."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from backends.native.kernels.launch import launchable
from backends.native.kernels.reference.fp8_linear import E4M3_MAX
from backends.native.kernels.reference.per_token_group_quant_fp8 import SMALLEST_ABSMAX
from backends.native.kernels.triton.matrix_tiles import with_whole_rows
from backends.native.kernels.triton.small_floats import e4m3_codes

TILE_ELEMENTS = 2048


@triton.jit  # type: ignore[untyped-decorator]
def quantize_groups_kernel(
    quantized: tl.tensor,
    scales: tl.tensor,
    x: tl.tensor,
    tokens: tl.tensor,
    columns: tl.tensor,
    groups: tl.tensor,
    x_stride: tl.tensor,
    smallest_absmax: tl.constexpr,
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
    absmax = tl.maximum(tl.max(tl.abs(values), axis=1), smallest_absmax)
    scale = tl.div_rn(absmax, tl.full((tile_tokens,), largest, tl.float32))
    codes = e4m3_codes(tl.div_rn(values, tl.broadcast_to(scale[:, None], (tile_tokens, tile_group))))
    tl.store(quantized + token[:, None] * columns + column[None, :], codes, mask=is_inside)
    tl.store(scales + token * groups + group, scale, mask=is_token)


def per_token_group_quant_fp8(x: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """The reference's arguments and results, bit for bit; inputs that are not finite aside."""
    (tokens, columns), groups = x.shape, -(-x.shape[1] // group_size)
    quantized = x.new_empty(tokens, columns, dtype=torch.float8_e4m3fn)
    scales = x.new_empty(tokens, groups, dtype=torch.float32)
    if not x.numel():
        return quantized, scales
    source = with_whole_rows(x)
    tile_group = int(triton.next_power_of_2(group_size))
    tile_tokens = max(1, min(TILE_ELEMENTS // tile_group, int(triton.next_power_of_2(tokens))))
    launchable(quantize_groups_kernel, (groups * triton.cdiv(tokens, tile_tokens),))(
        quantized.view(torch.uint8),
        scales,
        source,
        tokens,
        columns,
        groups,
        source.stride(0),
        smallest_absmax=SMALLEST_ABSMAX,
        largest=E4M3_MAX,
        group_size=group_size,
        tile_tokens=tile_tokens,
        tile_group=tile_group,
    )
    return quantized, scales
