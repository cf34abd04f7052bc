"""Routing by npu_moe_gating_top_k."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.native.kernels.npu.products import top_k_of_softmax


def topk_softmax(router_logits: Tensor, top_k: int, renormalize: bool) -> tuple[Tensor, Tensor]:
    """The reference's arguments and results; the operator's ids are int32 and are widened."""
    weights, ids = top_k_of_softmax(router_logits.float(), top_k)
    weights = weights / weights.sum(-1, keepdim=True) if renormalize else weights
    return weights, ids.to(torch.int64)
