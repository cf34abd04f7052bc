"""Linear layers in INT8 (W8A8): inputs quantized per token or by a given scale, exact integer sums."""

from __future__ import annotations

from torch import Tensor

from backends.native.kernels.reference import int8_linear as reference
from backends.native.kernels.triton.int8_products import LONGEST_SUM, int8_product, quantize_by_scale, quantize_tokens


def int8_linear(
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    weight_offset: Tensor | None,
    input_scale: Tensor | None,
    input_zero_point: Tensor | None,
    is_quantizing: bool,
    bias: Tensor | None,
) -> Tensor:
    """The reference's arguments and result; 16-bit inputs agree to a rounding, float32 to 1e-6 of the largest output.

    Inputs are quantized to the reference's bits. A zero point must be a whole number. Without quantization, with more
    than 131072 inputs, or where weight scale and offset have different sizes, this is the reference itself.
    """
    is_mixed = weight_offset is not None and weight_offset.numel() not in (1, weight_scale.numel())
    if not is_quantizing or is_mixed or x.shape[1] > LONGEST_SUM or not x.numel() or not weight.numel():
        return reference.int8_linear(
            x, weight, weight_scale, weight_offset, input_scale, input_zero_point, is_quantizing, bias
        )
    if input_scale is None:
        quantized, scale = quantize_tokens(x)
    else:
        quantized, scale = quantize_by_scale(x, input_scale, input_zero_point), input_scale
    return int8_product(
        x,
        quantized,
        weight,
        weight_scale,
        x_scale=scale,
        zero_point=input_zero_point,
        weight_offset=weight_offset,
        bias=bias,
    )
