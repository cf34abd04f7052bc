"""Linear layers in MXFP4, dequantized tile by tile; inputs quantized in a launch before, where that is declared."""

from __future__ import annotations

from torch import Tensor

from backends.native.kernels.reference import mxfp4_linear as reference
from backends.native.kernels.triton.float4 import float4_product, quantized_inputs
from backends.native.kernels.triton.matrix_tiles import is_multiplied


def mxfp4_linear(x: Tensor, weight: Tensor, weight_scale: Tensor, is_quantizing: bool, bias: Tensor | None) -> Tensor:
    """The reference's arguments and result; the tensor cores' own float4 is not used.

    Both multiply the same values: 1e-5 of the largest output in float32, one rounding of the output in 16 bits. On a
    GPU weights beyond the range of float16 are infinite for inputs of that dtype, as in the reference.
    """
    if not is_multiplied(x) or not x.numel() or not weight.numel():
        return reference.mxfp4_linear(x, weight, weight_scale, is_quantizing, bias)
    inputs = quantized_inputs(x, None, reference.GROUP) if is_quantizing else x
    return float4_product(x, inputs, weight, weight_scale, group=reference.GROUP, bias=bias)
