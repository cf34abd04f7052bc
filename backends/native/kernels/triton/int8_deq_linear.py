"""INT8 linear layers whose sums are corrected by an integer bias and scaled once, by output channel."""

from __future__ import annotations

from torch import Tensor

from backends.native.kernels.reference import int8_deq_linear as reference
from backends.native.kernels.triton.int8_products import LONGEST_SUM, int8_product, quantize_by_scale


def int8_deq_linear(
    x: Tensor, weight: Tensor, input_scale: Tensor, input_offset: Tensor, quant_bias: Tensor, deq_scale: Tensor
) -> Tensor:
    """The reference's arguments and result; scaled in float32 instead of float64, which is 1e-7 of each output.

    With more than 131072 inputs this is the reference itself. Sums with their integer bias must fit into int32.
    """
    if x.shape[1] > LONGEST_SUM or not x.numel() or not weight.numel():
        return reference.int8_deq_linear(x, weight, input_scale, input_offset, quant_bias, deq_scale)
    quantized = quantize_by_scale(x, input_scale, input_offset)
    return int8_product(x, quantized, weight, deq_scale, integer_bias=quant_bias.contiguous())
