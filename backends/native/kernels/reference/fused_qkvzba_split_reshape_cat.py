"""Takes the packed outputs of in_proj_qkvz and in_proj_ba apart."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.native.kernels.op import reference_op


@reference_op
def fused_qkvzba_split_reshape_cat(
    mixed_qkvz: Tensor, mixed_ba: Tensor, num_k_heads: int, num_v_heads: int, head_k_dim: int, head_v_dim: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Packed per key head -> mixed_qkv [tokens, queries then keys then values], z [tokens, v_heads, v_dim], b and a.

    A group of `mixed_qkvz` is one key head's query, key, then the values and the z of its value heads; a group of
    `mixed_ba` is the b and then the a of those heads. b and a are [tokens, v_heads].
    """
    per_group = num_v_heads // num_k_heads
    tokens, group_v_dim = mixed_qkvz.shape[0], per_group * head_v_dim
    groups = mixed_qkvz.reshape(tokens, num_k_heads, -1)
    query, key, value, z = torch.split(groups, [head_k_dim, head_k_dim, group_v_dim, group_v_dim], dim=-1)
    b, a = torch.split(mixed_ba.reshape(tokens, num_k_heads, -1), per_group, dim=-1)
    mixed_qkv = torch.cat([part.flatten(-2) for part in (query, key, value)], dim=-1)
    # With one key head these are views, and an operator must not return views of its arguments.
    z, b, a = (part.clone(memory_format=torch.contiguous_format) for part in (z, b, a))
    return mixed_qkv, z.view(tokens, num_v_heads, head_v_dim), b.flatten(-2), a.flatten(-2)
