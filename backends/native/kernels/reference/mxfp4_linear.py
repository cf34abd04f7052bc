"""Linear layers in float4_e2m1 with a power of two, stored as e8m0, per 32 elements."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from backends.native.kernels.op import reference_op
from backends.native.kernels.reference.packing import (
    E8M0_BIAS,
    e2m1_codes,
    e2m1_floats,
    e8m0_floats,
    unpack_nibbles,
)

GROUP = 32
E2M1_LARGEST_EXPONENT = 2
E8M0_LARGEST = 254


def mxfp4_groups(x: Tensor) -> tuple[Tensor, Tensor]:
    """`x` [rows, K] -> float4 codes [rows, K] and uint8 exponents [rows, K / 32]: that of the absmax less 2."""
    groups = x.float().view(x.shape[0], -1, GROUP)
    exponent = torch.frexp(groups.abs().amax(2)).exponent - 1 - E2M1_LARGEST_EXPONENT
    biased = (exponent + E8M0_BIAS).clamp(0, E8M0_LARGEST).to(torch.uint8)
    return e2m1_codes(groups / e8m0_floats(biased).unsqueeze(2)).flatten(1), biased


def mxfp4_floats(codes: Tensor, exponents: Tensor) -> Tensor:
    """The inverse, in float32."""
    return e2m1_floats(codes) * e8m0_floats(exponents).repeat_interleave(GROUP, dim=1)


@reference_op
def mxfp4_linear(x: Tensor, weight: Tensor, weight_scale: Tensor, is_quantizing: bool, bias: Tensor | None) -> Tensor:
    """`x` [tokens, K] -> [tokens, N] in the dtype of `x`; weight uint8 [N, K / 2], its exponents uint8 [N, K / 32].

    `x` is quantized in the same way where `is_quantizing` is true.
    """
    dequantized = mxfp4_floats(unpack_nibbles(weight), weight_scale)
    if not is_quantizing:
        return functional.linear(x, dequantized.to(x.dtype), bias)
    product = functional.linear(mxfp4_floats(*mxfp4_groups(x)), dequantized)
    return (product if bias is None else product + bias).to(x.dtype)
