"""Fused experts in the model's dtype: tokens are sorted by expert, then two grouped products."""

from __future__ import annotations

from torch import Tensor

from backends.native.kernels.reference import fused_moe as reference
from backends.native.kernels.triton.block_product import plain_operands
from backends.native.kernels.triton.expert_products import Operands, down, gate_up
from backends.native.kernels.triton.matrix_tiles import is_multiplied, rows_of_tile, with_whole_rows
from backends.native.kernels.triton.token_sorting import SortedChoices, sort_by_expert


def sorted_choices(topk_ids: Tensor, experts: int) -> SortedChoices:
    """In tiles as tall as the choices that an expert gets on average."""
    return sort_by_expert(topk_ids, experts, rows_of_tile(-(-topk_ids.numel() // max(1, experts))))


def fused_moe(x: Tensor, w13: Tensor, w2: Tensor, topk_weights: Tensor, topk_ids: Tensor) -> Tensor:
    """The reference's arguments and result.

    In float32 both agree to 1e-5 of the largest output. In 16 bits gate and up are rounded once, after the activation,
    and the choices of a token are summed in float32, where the reference rounds each.
    """
    if not is_multiplied(x) or not (x.dtype == w13.dtype == w2.dtype):
        return reference.fused_moe(x, w13, w2, topk_weights, topk_ids)
    if not x.numel() or not topk_ids.numel():
        return x.new_zeros(x.shape)
    choices = sorted_choices(topk_ids, w13.shape[0])
    w13, w2 = with_whole_rows(w13), with_whole_rows(w2)
    inputs, w13, dtype = plain_operands(with_whole_rows(x), w13)
    hidden = gate_up(x, Operands(inputs, None, w13, None, dtype), choices, topk_ids.numel(), topk_ids.shape[1])
    return down(x, Operands(hidden, None, w2, None, dtype), choices, topk_weights)
