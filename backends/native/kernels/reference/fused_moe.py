"""Experts over a batch of tokens, one expert at a time."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from backends.native.kernels.op import reference_op


def run_experts(
    x: Tensor, expert: Callable[[int], tuple[Tensor, Tensor]], topk_weights: Tensor, topk_ids: Tensor
) -> Tensor:
    """Weighted sum of the experts in `topk_ids`; `expert(e)` gives w13 [gate + up, hidden] and w2 of expert e."""
    output = x.new_zeros(x.shape)
    for expert_id in sorted(set(topk_ids.flatten().tolist())):
        tokens, choices = (topk_ids == expert_id).nonzero(as_tuple=True)
        w13, w2 = expert(expert_id)
        gate, up = functional.linear(x[tokens], w13).chunk(2, dim=-1)
        down = functional.linear(functional.silu(gate) * up, w2)
        output.index_add_(0, tokens, down * topk_weights[tokens, choices, None])
    return output


@reference_op
def fused_moe(x: Tensor, w13: Tensor, w2: Tensor, topk_weights: Tensor, topk_ids: Tensor) -> Tensor:
    """`x` [tokens, hidden] -> the same; w13 [experts, gate + up, hidden], w2 [experts, hidden, intermediate]."""
    return run_experts(x, lambda expert_id: (w13[expert_id], w2[expert_id]), topk_weights, topk_ids)
