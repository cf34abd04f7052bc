"""Linear layers and experts whose weight is stored in blocks of float8 elements with one scale each."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from backends.native.kernels.op import reference_op
from backends.native.kernels.reference.fused_moe import Linear, run_experts, times


def dequantize_blocks(weight: Tensor, scale: Tensor, block: tuple[int, int] | list[int]) -> Tensor:
    """`weight` [N, K] times its blocks' `scale` [ceil(N / block_n), ceil(K / block_k)], in float32."""
    rows, columns = weight.shape
    expanded = scale.repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)[:, :columns]
    return weight.float() * expanded


@reference_op
def fp8_block_linear(x: Tensor, weight: Tensor, scale: Tensor, block: list[int], bias: Tensor | None) -> Tensor:
    """`x` [tokens, K] -> [tokens, N] in the dtype of `x`; weight-only: `x` is not quantized, the weight dequantized."""
    return functional.linear(x, dequantize_blocks(weight, scale, block).to(x.dtype), bias)


@reference_op
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
        gate_up = dequantize_blocks(w13[expert_id], w13_scale[expert_id], block)
        down = dequantize_blocks(w2[expert_id], w2_scale[expert_id], block)
        return times(gate_up.to(x.dtype)), times(down.to(x.dtype))

    return run_experts(x, expert, topk_weights, topk_ids)
