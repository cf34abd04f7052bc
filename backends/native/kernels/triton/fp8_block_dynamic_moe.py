"""Fused experts in e4m3 blocks, with inputs quantized per token and group before both products."""

from __future__ import annotations

from torch import Tensor

from backends.native.kernels.reference import fp8_block_dynamic_moe as reference
from backends.native.kernels.triton.block_product import float8_operands
from backends.native.kernels.triton.expert_products import Operands, down, gate_up
from backends.native.kernels.triton.fused_moe import sorted_choices
from backends.native.kernels.triton.matrix_tiles import is_multiplied, with_whole_rows
from backends.native.kernels.triton.per_token_group_quant_fp8 import per_token_group_quant_fp8


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
    """The reference's arguments and result, for blocks of any size; the inputs are quantized once per token.

    What enters the second product differs from the reference in its last bits, so that some of it is rounded to the
    neighbouring e4m3. In float32 that is rare and both mostly agree to 1e-5; in bfloat16 single outputs differ by up to
    5 % of the largest, and all of them by 3 % (root mean square).
    """
    if not is_multiplied(x):
        return reference.fp8_block_dynamic_moe(x, w13, w13_scale, w2, w2_scale, block, topk_weights, topk_ids)
    if not x.numel() or not topk_ids.numel():
        return x.new_zeros(x.shape)
    choices, sizes = sorted_choices(topk_ids, w13.shape[0]), (block[0], block[1])
    w13, w13_scale, w2, w2_scale = (with_whole_rows(tensor) for tensor in (w13, w13_scale, w2, w2_scale))
    quantized, scale = per_token_group_quant_fp8(x, block[1])
    inputs, gate_up_weight, dtype = float8_operands(x, quantized, w13)
    first = Operands(inputs, scale, gate_up_weight, w13_scale, dtype, sizes)
    quantized, scale = per_token_group_quant_fp8(
        gate_up(x, first, choices, topk_ids.numel(), topk_ids.shape[1]), block[1]
    )
    inputs, down_weight, dtype = float8_operands(x, quantized, w2)
    return down(x, Operands(inputs, scale, down_weight, w2_scale, dtype, sizes), choices, topk_weights)
