"""Linear layers in INT8 (W8A8): npu_dynamic_quant or npu_quantize, then npu_quant_matmul."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.native.errors import KernelError
from backends.native.kernels.npu.products import (
    int8_product,
    quantize_by_scale,
    quantize_tokens,
    require_half,
    weight_only_product,
)


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
    """The reference's arguments and result, for inputs in half precision and symmetric weights; else KernelError.

    The operators have no offset of weights. `weight` may be the view that `int8_weight_layout` made.
    """
    require_half(x, "int8_linear")
    if weight_offset is not None:
        raise KernelError(
            f"int8_linear on {x.device}: the weight [{weight.shape[0]}, {weight.shape[1]}] has offsets that are not "
            "zero, expected symmetric weights.",
            "quantize the checkpoint symmetrically, or use --kernels reference",
        )
    if not x.shape[0]:
        return x.new_empty(0, weight.shape[0])
    if not is_quantizing:
        return weight_only_product(x, weight, weight_scale, bias)
    scale = weight_scale.flatten()
    if input_scale is None:
        quantized, token_scale = quantize_tokens(x)
        return int8_product(quantized, weight, scale, x.dtype, token_scale, bias)
    quantized = quantize_by_scale(x, input_scale, input_zero_point)
    if input_zero_point is None:
        return int8_product(quantized, weight, scale * input_scale, x.dtype, None, bias)
    correction = -weight.sum(1, dtype=torch.int32) * input_zero_point.to(torch.int32)
    product = int8_product(quantized, weight, scale * input_scale, x.dtype, None, correction)
    return product if bias is None else product + bias
