"""Experts in blocks of float8 elements, their weights dequantized in C."""

from __future__ import annotations

from torch import Tensor

from backends.native.kernels.compiled.fp8_blocks import dequantize_blocks
from backends.native.kernels.compiled.overload import compiled_op
from backends.native.kernels.reference.fused_moe import Linear, run_experts, times


@compiled_op
def fp8_block_moe(
    x: Tensor,
    w13: Tensor,
    w13_scale: Tensor,
    w2: Tensor,
    w2_scale: Tensor,
    block: list[int],
    topk_weights: Tensor,
    topk_ids: Tensor,
) -> Tensor:
    """`fused_moe` on block-quantized experts, of which only the chosen ones are dequantized."""

    def expert(expert_id: int) -> tuple[Linear, Linear]:
        gate_up = dequantize_blocks(w13[expert_id], w13_scale[expert_id], block, x.dtype)
        return times(gate_up), times(dequantize_blocks(w2[expert_id], w2_scale[expert_id], block, x.dtype))

    return run_experts(x, expert, topk_weights, topk_ids)
