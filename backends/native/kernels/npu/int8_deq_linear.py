"""INT8 linear layers with an integer bias and one scale per channel, in one npu_quant_matmul."""

from __future__ import annotations

from torch import Tensor

from backends.native.kernels.npu.products import int8_product, quantize_by_scale, require_half


def int8_deq_linear(
    x: Tensor, weight: Tensor, input_scale: Tensor, input_offset: Tensor, quant_bias: Tensor, deq_scale: Tensor
) -> Tensor:
    """The reference's arguments and result, for inputs in half precision; else KernelError.

    In float16 the hardware reads 19 bits of each `deq_scale`: up to 2**-10 of an output is lost.
    """
    require_half(x, "int8_deq_linear")
    if not x.shape[0]:
        return x.new_empty(0, weight.shape[0])
    quantized = quantize_by_scale(x, input_scale, input_offset)
    return int8_product(quantized, weight, deq_scale, x.dtype, bias=quant_bias)
