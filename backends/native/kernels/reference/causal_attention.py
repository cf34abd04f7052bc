"""Softmax attention of the last tokens of a sequence to all tokens up to each."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.native.kernels.op import reference_op


@reference_op
def causal_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """`query` [tokens, heads, head_dim], `key` and `value` [all tokens, kv_heads, head_dim] -> shape of `query`.

    The queries are the last tokens of the sequence; each key/value head serves heads / kv_heads neighbouring queries.
    """
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = torch.einsum("qhd,khd->hqk", query, key) * query.shape[-1] ** -0.5
    queries, keys = query.shape[0], key.shape[0]
    is_later = torch.ones(queries, keys, dtype=torch.bool, device=query.device).triu(keys - queries + 1)
    weights = scores.masked_fill(is_later, float("-inf")).softmax(-1, dtype=torch.float32).to(query.dtype)
    return torch.einsum("hqk,khd->qhd", weights, value)
