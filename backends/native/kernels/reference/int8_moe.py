"""Experts in INT8 with symmetric weights and inputs quantized per token."""

from __future__ import annotations

from torch import Tensor

from backends.native.kernels.op import reference_op
from backends.native.kernels.reference.fused_moe import Linear, run_experts
from backends.native.kernels.reference.int8_linear import int8_linear


@reference_op
def int8_moe(
    x: Tensor,
    w13: Tensor,
    w13_scale: Tensor,
    w2: Tensor,
    w2_scale: Tensor,
    topk_weights: Tensor,
    topk_ids: Tensor,
) -> Tensor:
    """`x` [tokens, hidden] -> the same; int8 w13 [experts, gate + up, hidden], w2 [experts, hidden, intermediate].

    The scales are [experts, rows, 1], float32; the weights and ids of the chosen experts are [tokens, top_k].
    """

    def times(weight: Tensor, scale: Tensor) -> Linear:
        return lambda inputs: int8_linear(inputs, weight, scale, None, None, None, True, None)

    return run_experts(
        x,
        lambda expert: (times(w13[expert], w13_scale[expert]), times(w2[expert], w2_scale[expert])),
        topk_weights,
        topk_ids,
    )
