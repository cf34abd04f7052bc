"""Routing: which experts a token visits and with which weights."""

from __future__ import annotations

from torch import Tensor

from backends.native.kernels.op import reference_op


@reference_op
def topk_softmax(router_logits: Tensor, top_k: int, renormalize: bool) -> tuple[Tensor, Tensor]:
    """Logits [tokens, experts] -> float32 weights and int64 ids, both [tokens, top_k], the likeliest expert first."""
    weights, ids = router_logits.float().softmax(-1).topk(top_k, dim=-1)
    return (weights / weights.sum(-1, keepdim=True) if renormalize else weights), ids
