"""Fused experts in e4m3 blocks, weight-only."""

from __future__ import annotations

from torch import Tensor

from backends.native.kernels.reference import fp8_block_moe as reference
from backends.native.kernels.triton.block_product import plain_operands
from backends.native.kernels.triton.expert_products import Operands, down, gate_up
from backends.native.kernels.triton.fused_moe import sorted_choices
from backends.native.kernels.triton.matrix_tiles import is_multiplied, with_whole_rows


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
    """The reference's arguments and result, for blocks of any size; bounds as in `fp8_block_linear` and `fused_moe`."""
    if not is_multiplied(x):
        return reference.fp8_block_moe(x, w13, w13_scale, w2, w2_scale, block, topk_weights, topk_ids)
    if not x.numel() or not topk_ids.numel():
        return x.new_zeros(x.shape)
    choices, sizes = sorted_choices(topk_ids, w13.shape[0]), (block[0], block[1])
    w13, w13_scale, w2, w2_scale = (with_whole_rows(tensor) for tensor in (w13, w13_scale, w2, w2_scale))
    inputs, gate_up_weight, dtype = plain_operands(with_whole_rows(x), w13)
    first = Operands(inputs, None, gate_up_weight, w13_scale, dtype, sizes)
    hidden = gate_up(x, first, choices, topk_ids.numel(), topk_ids.shape[1])
    inputs, down_weight, dtype = plain_operands(hidden, w2)
    return down(x, Operands(inputs, None, down_weight, w2_scale, dtype, sizes), choices, topk_weights)
