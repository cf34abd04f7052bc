"""Linear layers in e4m3 with a scale per tensor or channel, and inputs quantized by a given scale or per token."""

from __future__ import annotations

from torch import Tensor

from backends.native.kernels.reference import fp8_linear as reference
from backends.native.kernels.triton.block_product import float8_operands, plain_operands
from backends.native.kernels.triton.float8_inputs import quantize_by_scale, quantize_groups
from backends.native.kernels.triton.fp8_block_linear import launch
from backends.native.kernels.triton.matrix_tiles import is_multiplied

LONGEST_TOKEN = 1 << 16
"""Inputs of which one program finds the largest."""


def fp8_linear(
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    input_scale: Tensor | None,
    is_quantizing: bool,
    bias: Tensor | None,
) -> Tensor:
    """The reference's arguments and result; with more than 65536 inputs it is the reference itself.

    Inputs are quantized to the reference's bits, so in float32 both agree to 1e-5 of the largest output; about e4m3
    sums on GPUs see `fp8_block_dynamic_linear`, and about weight-only products `fp8_block_linear`.
    """
    outputs, inputs = weight.shape
    if not is_multiplied(x) or not x.numel() or not outputs or inputs > LONGEST_TOKEN:
        return reference.fp8_linear(x, weight, weight_scale, input_scale, is_quantizing, bias)
    scales, block = weight_scale.float().reshape(-1, 1).expand(outputs, 1), [1, inputs]
    if not is_quantizing:
        plain, codes, dtype = plain_operands(x, weight)
        return launch(x, plain, None, codes, scales, block, bias, dtype)
    if input_scale is None:
        quantized, token_scales = quantize_groups(x, inputs, smallest_scale=reference.SMALLEST_SCALE)
    else:
        quantized = quantize_by_scale(x, input_scale)
        token_scales = input_scale.float().reshape(1, 1).expand(x.shape[0], 1)
    operand, codes, dtype = float8_operands(x, quantized, weight)
    return launch(x, operand, token_scales, codes, scales, block, bias, dtype)
