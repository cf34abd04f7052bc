"""Experts in INT8: tokens sorted by expert, two npu_grouped_matmul with inputs quantized per token."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.native.kernels.npu.products import grouped_product, quantize_tokens, require_half, swiglu


def int8_moe(
    x: Tensor,
    w13: Tensor,
    w13_scale: Tensor,
    w2: Tensor,
    w2_scale: Tensor,
    topk_weights: Tensor,
    topk_ids: Tensor,
) -> Tensor:
    """The reference's arguments and result, for inputs in half precision; else KernelError.

    A bfloat16 output has its weight scales in bfloat16, as the operator asks.
    """
    require_half(x, "int8_moe")
    tokens, top_k = topk_ids.shape
    if not tokens:
        return torch.empty_like(x)
    flat = topk_ids.flatten()
    order = flat.argsort(stable=True)
    experts = torch.arange(w13.shape[0], device=x.device, dtype=flat.dtype)
    ends = (flat.unsqueeze(1) == experts).sum(0).cumsum(0)
    quantized, scale = quantize_tokens(x[order // top_k])
    hidden = swiglu(grouped_product(quantized, scale, w13, w13_scale.flatten(1), ends, x.dtype))
    quantized, scale = quantize_tokens(hidden)
    sorted_output = grouped_product(quantized, scale, w2, w2_scale.flatten(1), ends, x.dtype)
    output = torch.empty_like(sorted_output)
    output[order] = sorted_output
    weighted = output.view(tokens, top_k, -1) * topk_weights.unsqueeze(-1)
    return weighted.sum(1).to(x.dtype)
