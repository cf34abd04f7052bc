"""Takes the packed outputs of in_proj_qkvz and in_proj_ba apart in one launch."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


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


def fused_qkvzba_split_reshape_cat(
    mixed_qkvz: Tensor, mixed_ba: Tensor, num_k_heads: int, num_v_heads: int, head_k_dim: int, head_v_dim: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The reference's arguments and results; the grid is tokens × key heads."""
    tokens = mixed_qkvz.shape[0]
    group_v_heads = num_v_heads // num_k_heads
    group_v_dim = group_v_heads * head_v_dim
    mixed_qkv = mixed_qkvz.new_empty(tokens, num_k_heads * (2 * head_k_dim + group_v_dim))
    z = mixed_qkvz.new_empty(tokens, num_v_heads, head_v_dim)
    b, a = (mixed_ba.new_empty(tokens, num_v_heads) for _ in range(2))
    split_kernel[(tokens, num_k_heads)](
        mixed_qkv,
        z,
        b,
        a,
        mixed_qkvz.contiguous(),
        mixed_ba.contiguous(),
        num_k_heads=num_k_heads,
        head_k_dim=head_k_dim,
        group_v_heads=group_v_heads,
        group_v_dim=group_v_dim,
        block_k=triton.next_power_of_2(head_k_dim),
        block_v=triton.next_power_of_2(group_v_dim),
        block_heads=triton.next_power_of_2(group_v_heads),
    )
    return mixed_qkv, z, b, a
