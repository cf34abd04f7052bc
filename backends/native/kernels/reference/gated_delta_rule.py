"""The gated delta rule, token by token."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.native.kernels.op import reference_op

EPS = 1e-6


def l2_normalized(x: Tensor) -> Tensor:
    """`x` over its length along the last dimension, which counts as at least about 0.001."""
    return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + EPS)


@reference_op
def gated_delta_rule(
    query: Tensor, key: Tensor, value: Tensor, decay: Tensor, beta: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Per value head: decay the state, move what it recalls for `key` by `beta` towards `value`, read it by `query`.

    `query`, `key` [tokens, k_heads, k_dim]; `value` [tokens, v_heads, v_dim]; `decay` (log, <= 0) and `beta`
    [tokens, v_heads]; `state` float32 [v_heads, k_dim, v_dim] or None for zeros. Returns the outputs [tokens, v_heads,
    v_dim] in the dtype of `query` and the state after the last token. Queries and keys are normalized here.
    """
    v_heads, groups = value.shape[1], value.shape[1] // key.shape[1]
    query_n = l2_normalized(query.float()).repeat_interleave(groups, dim=1) * query.shape[-1] ** -0.5
    key_n = l2_normalized(key.float()).repeat_interleave(groups, dim=1)
    value_f, rate, kept = value.float(), beta.float().unsqueeze(-1), decay.float().exp()[..., None, None]
    now = query_n.new_zeros(v_heads, key.shape[-1], value.shape[-1]) if state is None else state.clone()
    outputs = torch.empty_like(value_f)
    for token in range(value.shape[0]):
        now = now * kept[token]
        recalled = torch.einsum("hk,hkv->hv", key_n[token], now)
        now = now + torch.einsum("hk,hv->hkv", key_n[token], (value_f[token] - recalled) * rate[token])
        outputs[token] = torch.einsum("hk,hkv->hv", query_n[token], now)
    return outputs.to(query.dtype), now
