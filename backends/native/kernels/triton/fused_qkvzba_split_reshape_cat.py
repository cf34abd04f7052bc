"""Takes the packed outputs of in_proj_qkvz and in_proj_ba apart in one launch."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from backends.native.kernels.launch import launchable


@triton.jit  # type: ignore[untyped-decorator]
def split_kernel(
    mixed_qkv: tl.tensor,
    z: tl.tensor,
    b: tl.tensor,
    a: tl.tensor,
    mixed_qkvz: tl.tensor,
    mixed_ba: tl.tensor,
    num_k_heads: tl.constexpr,
    head_k_dim: tl.constexpr,
    group_v_heads: tl.constexpr,
    group_v_dim: tl.constexpr,
    block_k: tl.constexpr,
    block_v: tl.constexpr,
    block_heads: tl.constexpr,
) -> None:
    """One program copies one key head's group of one token; nothing is computed, so no dtype is rounded."""
    token, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    k, v, head = tl.arange(0, block_k), tl.arange(0, block_v), tl.arange(0, block_heads)
    in_k, in_v, in_heads = k < head_k_dim, v < group_v_dim, head < group_v_heads
    source = mixed_qkvz + (token * num_k_heads + group) * (2 * head_k_dim + 2 * group_v_dim)
    row = mixed_qkv + token * num_k_heads * (2 * head_k_dim + group_v_dim)
    keys, values = row + num_k_heads * head_k_dim, row + 2 * num_k_heads * head_k_dim
    tl.store(row + group * head_k_dim + k, tl.load(source + k, mask=in_k), mask=in_k)
    tl.store(keys + group * head_k_dim + k, tl.load(source + head_k_dim + k, mask=in_k), mask=in_k)
    source += 2 * head_k_dim
    tl.store(values + group * group_v_dim + v, tl.load(source + v, mask=in_v), mask=in_v)
    heads = token * num_k_heads + group
    tl.store(z + heads * group_v_dim + v, tl.load(source + group_v_dim + v, mask=in_v), mask=in_v)
    source = mixed_ba + heads * 2 * group_v_heads + head
    tl.store(b + heads * group_v_heads + head, tl.load(source, mask=in_heads), mask=in_heads)
    tl.store(a + heads * group_v_heads + head, tl.load(source + group_v_heads, mask=in_heads), mask=in_heads)


Parts = tuple[Tensor, Tensor, Tensor, Tensor]
"""mixed_qkv, z, b and a, as the reference returns them."""


def empty_parts(
    mixed_qkvz: Tensor, mixed_ba: Tensor, num_k_heads: int, num_v_heads: int, head_k_dim: int, head_v_dim: int
) -> Parts:
    """The results of a batch of tokens, which nothing was written to yet."""
    tokens = mixed_qkvz.shape[0]
    channels = 2 * num_k_heads * head_k_dim + num_v_heads * head_v_dim
    return (
        mixed_qkvz.new_empty(tokens, channels),
        mixed_qkvz.new_empty(tokens, num_v_heads, head_v_dim),
        mixed_ba.new_empty(tokens, num_v_heads),
        mixed_ba.new_empty(tokens, num_v_heads),
    )


def split_into(
    parts: Parts,
    mixed_qkvz: Tensor,
    mixed_ba: Tensor,
    num_k_heads: int,
    num_v_heads: int,
    head_k_dim: int,
    head_v_dim: int,
) -> None:
    """Write the contiguous `parts` of some tokens in one launch, whose grid is tokens × key heads."""
    group_v_heads = num_v_heads // num_k_heads
    launchable(split_kernel, (mixed_qkvz.shape[0], num_k_heads))(
        *parts,
        mixed_qkvz.contiguous(),
        mixed_ba.contiguous(),
        num_k_heads=num_k_heads,
        head_k_dim=head_k_dim,
        group_v_heads=group_v_heads,
        group_v_dim=group_v_heads * head_v_dim,
        block_k=triton.next_power_of_2(head_k_dim),
        block_v=triton.next_power_of_2(group_v_heads * head_v_dim),
        block_heads=triton.next_power_of_2(group_v_heads),
    )


def fused_qkvzba_split_reshape_cat(
    mixed_qkvz: Tensor, mixed_ba: Tensor, num_k_heads: int, num_v_heads: int, head_k_dim: int, head_v_dim: int
) -> Parts:
    """The reference's arguments and results."""
    sizes = (num_k_heads, num_v_heads, head_k_dim, head_v_dim)
    parts = empty_parts(mixed_qkvz, mixed_ba, *sizes)
    split_into(parts, mixed_qkvz, mixed_ba, *sizes)
    return parts
