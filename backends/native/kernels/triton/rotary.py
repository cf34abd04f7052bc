"""Rotation of the leading elements of each head by the angle of its position."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from backends.native.kernels.launch import launchable
from backends.native.kernels.triton.tiles import row_tile


@triton.jit  # type: ignore[untyped-decorator]
def rotary_kernel(
    output: tl.tensor,
    x: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    heads: tl.tensor,
    token_stride: tl.tensor,
    head_stride: tl.tensor,
    half: tl.constexpr,
    rest: tl.constexpr,
    block_heads: tl.constexpr,
    block_half: tl.constexpr,
    block_rest: tl.constexpr,
) -> None:
    """One program turns some heads of one token, in float32, and copies what does not turn."""
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * block_heads + tl.arange(0, block_heads)
    column = tl.arange(0, block_half)
    inside = (head[:, None] < heads) & (column[None, :] < half)
    angle = token * half + column
    cosine = tl.load(cos + angle, mask=column < half, other=0.0).to(tl.float32)[None, :]
    sine = tl.load(sin + angle, mask=column < half, other=0.0).to(tl.float32)[None, :]
    source = x + token * token_stride + head[:, None] * head_stride
    target = output + (token * heads + head)[:, None] * (2 * half + rest)
    first = tl.load(source + column[None, :], mask=inside, other=0.0).to(tl.float32)
    second = tl.load(source + half + column[None, :], mask=inside, other=0.0).to(tl.float32)
    turned = first * cosine - second * sine
    tl.store(target + column[None, :], turned.to(output.dtype.element_ty), mask=inside)
    turned = second * cosine + first * sine
    tl.store(target + half + column[None, :], turned.to(output.dtype.element_ty), mask=inside)
    if rest > 0:
        column = 2 * half + tl.arange(0, block_rest)
        inside = (head[:, None] < heads) & (column[None, :] < 2 * half + rest)
        kept = tl.load(source + column[None, :], mask=inside, other=0.0)
        tl.store(target + column[None, :], kept.to(output.dtype.element_ty), mask=inside)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The reference's arguments and result; the grid is tokens × groups of heads."""
    tokens, heads, head_dim = x.shape
    half = cos.shape[-1]
    output = torch.empty(x.shape, dtype=torch.promote_types(x.dtype, cos.dtype), device=x.device)
    if not x.numel() or not half:
        return output.copy_(x)
    if x.stride(2) != 1:
        x = x.contiguous()
    tile = row_tile(heads, half)
    launchable(rotary_kernel, (tokens, triton.cdiv(heads, tile.rows)))(
        output,
        x,
        cos.contiguous(),
        sin.contiguous(),
        heads,
        x.stride(0),
        x.stride(1),
        half=half,
        rest=head_dim - 2 * half,
        block_heads=tile.rows,
        block_half=tile.columns,
        block_rest=triton.next_power_of_2(max(1, head_dim - 2 * half)),
        num_warps=tile.num_warps,
    )
    return output
