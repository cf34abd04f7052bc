"""Linear layers in INT8 with exact integer sums, for inputs quantized by a given scale or per token."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from backends.native.kernels.op import reference_op

INT8_MAX = 127
SMALLEST_SCALE = 1e-12


def quantize_tokens_int8(x: Tensor) -> tuple[Tensor, Tensor]:
    """`x` [tokens, K] -> int8 and float32 scales [tokens, 1], of which the largest element of a token is 127 times."""
    scale = (x.float().abs().amax(-1, keepdim=True) / INT8_MAX).clamp(min=SMALLEST_SCALE)
    return (x.float() / scale).round().to(torch.int8), scale


def quantize_int8(x: Tensor, scale: Tensor, zero_point: Tensor | None) -> Tensor:
    """`x / scale + zero_point`, rounded half to even and saturated at -128 and 127."""
    rounded = (x.float() / scale).round()
    shifted = rounded if zero_point is None else rounded + zero_point.float()
    return shifted.clamp(-INT8_MAX - 1, INT8_MAX).to(torch.int8)


def integer_product(x: Tensor, weight: Tensor) -> Tensor:
    """int8 [tokens, K] times int8 [N, K] -> int64 [tokens, N], without rounding."""
    if x.is_cpu:
        return torch._int_mm(x, weight.t()).long()  # noqa: SLF001 - torch has no public integer product
    return (x.double() @ weight.double().t()).long()


def dequantize_int8(weight: Tensor, scale: Tensor, offset: Tensor | None) -> Tensor:
    """float32 [N, K] from int8, its `scale` (one, or [N, 1]) and offset."""
    shifted = weight.float() if offset is None else weight.float() - offset.float()
    return shifted * scale


@reference_op
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
    """`x` [tokens, K] -> [tokens, N] in the dtype of `x`; weight scale and offset have one element or are [N, 1].

    `x` is quantized by `input_scale`, or per token where that is None; not at all where `is_quantizing` is false.
    """
    if not is_quantizing:
        return functional.linear(x, dequantize_int8(weight, weight_scale, weight_offset).to(x.dtype), bias)
    if input_scale is None:
        quantized, scale = quantize_tokens_int8(x)
    else:
        quantized, scale = quantize_int8(x, input_scale, input_zero_point), input_scale
    total = integer_product(quantized, weight).double()
    zero_point = 0.0 if input_zero_point is None else input_zero_point.double()
    if input_zero_point is not None:
        total = total - zero_point * weight.double().sum(1)
    if weight_offset is not None:
        total = total - (quantized.double() - zero_point).sum(-1, keepdim=True) * weight_offset.double().view(1, -1)
    product = total.float() * scale * weight_scale.view(1, -1)
    return (product if bias is None else product + bias).to(x.dtype)
