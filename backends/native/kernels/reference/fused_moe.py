"""Experts over a batch of tokens, one expert at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor
from torch.nn import functional

from backends.native.kernels.op import reference_op

Linear = Callable[[Tensor], Tensor]


def run_experts(
    x: Tensor, expert: Callable[[int], tuple[Linear, Linear]], topk_weights: Tensor, topk_ids: Tensor
) -> Tensor:
    """Weighted sum of the experts in `topk_ids`; `expert(e)` gives the products with its w13 (gate + up) and w2."""
    output = x.new_zeros(x.shape)
    for expert_id in sorted(set(topk_ids.flatten().tolist())):
        tokens, choices = (topk_ids == expert_id).nonzero(as_tuple=True)
        gate_up, down = expert(expert_id)
        gate, up = gate_up(x[tokens]).chunk(2, dim=-1)
        output.index_add_(0, tokens, down(functional.silu(gate) * up) * topk_weights[tokens, choices, None])
    return output


def times(weight: Tensor) -> Linear:
    """The product with a plain weight [output, input]."""
    return partial(functional.linear, weight=weight)


@reference_op
def fused_moe(x: Tensor, w13: Tensor, w2: Tensor, topk_weights: Tensor, topk_ids: Tensor) -> Tensor:
    """`x` [tokens, hidden] -> the same; w13 [experts, gate + up, hidden], w2 [experts, hidden, intermediate]."""
    return run_experts(x, lambda expert_id: (times(w13[expert_id]), times(w2[expert_id])), topk_weights, topk_ids)
