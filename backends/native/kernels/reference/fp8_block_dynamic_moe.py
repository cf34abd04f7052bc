"""Experts in e4m3 blocks whose inputs are quantized too, per token and group, before both products."""

from __future__ import annotations

from torch import Tensor

from backends.native.kernels.op import reference_op
from backends.native.kernels.reference.fp8_block_dynamic_linear import fp8_block_dynamic_linear
from backends.native.kernels.reference.fused_moe import Linear, run_experts


@reference_op
def fp8_block_dynamic_moe(
    x: Tensor,
    w13: Tensor,
    w13_scale: Tensor,
    w2: Tensor,
    w2_scale: Tensor,
    block: list[int],
    topk_weights: Tensor,
    topk_ids: Tensor,
) -> Tensor:
    """`fused_moe` on block-quantized experts with inputs quantized as in `fp8_block_dynamic_linear`."""

    def times(weight: Tensor, scale: Tensor) -> Linear:
        return lambda inputs: fp8_block_dynamic_linear(inputs, weight, scale, block, None)

    def expert(expert_id: int) -> tuple[Linear, Linear]:
        return times(w13[expert_id], w13_scale[expert_id]), times(w2[expert_id], w2_scale[expert_id])

    return run_experts(x, expert, topk_weights, topk_ids)
