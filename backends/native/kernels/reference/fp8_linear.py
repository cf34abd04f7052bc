"""Linear layers in e4m3 with a scale per tensor or channel, and inputs quantized by a given scale or per token."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from backends.native.kernels.op import reference_op

E4M3_MAX = torch.finfo(torch.float8_e4m3fn).max
SMALLEST_SCALE = 1e-12


def to_e4m3(x: Tensor) -> Tensor:
    """Rounded to nearest even and saturated: the cast alone makes NaN of what is too large."""
    return x.clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)


def quantize_tokens_e4m3(x: Tensor) -> tuple[Tensor, Tensor]:
    """`x` [tokens, K] -> e4m3 and float32 scales [tokens, 1], of which the largest element of a token is 448 times."""
    scale = (x.float().abs().amax(-1, keepdim=True) / E4M3_MAX).clamp(min=SMALLEST_SCALE)
    return to_e4m3(x.float() / scale), scale


@reference_op
def fp8_linear(
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    input_scale: Tensor | None,
    is_quantizing: bool,
    bias: Tensor | None,
) -> Tensor:
    """`x` [tokens, K] -> [tokens, N] in the dtype of `x`, accumulated in float32.

    `weight_scale` has one element or is [N, 1]. `x` is quantized by `input_scale`, or per token where that is None; not
    at all where `is_quantizing` is false.
    """
    if not is_quantizing:
        return functional.linear(x, (weight.float() * weight_scale).to(x.dtype), bias)
    if input_scale is None:
        quantized, scale = quantize_tokens_e4m3(x)
    else:
        quantized, scale = to_e4m3(x.float() / input_scale), input_scale
    product = functional.linear(quantized.float(), weight.float()) * scale * weight_scale.view(1, -1)
    return (product if bias is None else product + bias).to(x.dtype)
