"""Linear layers in NVFP4, dequantized tile by tile; inputs quantized in a launch before, where that is declared."""

from __future__ import annotations

from torch import Tensor

from backends.native.kernels.reference import nvfp4_linear as reference
from backends.native.kernels.triton.float4 import float4_product, quantized_inputs
from backends.native.kernels.triton.matrix_tiles import is_multiplied


def nvfp4_linear(
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    global_scale: Tensor,
    input_scale: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """The reference's arguments and result; the tensor cores' own float4 is not used.

    With quantized inputs both multiply the same values: 1e-5 of the largest output in float32, one rounding of the
    output in 16 bits. Weight-only, the reference rounds the weight to the dtype of `x` and this kernel does not.
    """
    if not is_multiplied(x) or not x.numel() or not weight.numel():
        return reference.nvfp4_linear(x, weight, weight_scale, global_scale, input_scale, bias)
    group = reference.GROUP
    inputs = x if input_scale is None else quantized_inputs(x, input_scale, group)
    return float4_product(
        x, inputs, weight, weight_scale, group=group, global_scale=global_scale, input_scale=input_scale, bias=bias
    )
