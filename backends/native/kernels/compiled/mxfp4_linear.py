"""Linear layers in MXFP4, the weight dequantized in C."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from backends.native.kernels.compiled.dequantize_mxfp4 import dequantize_mxfp4
from backends.native.kernels.compiled.overload import compiled_op
from backends.native.kernels.reference.mxfp4_linear import mxfp4_floats, mxfp4_groups


@compiled_op
def mxfp4_linear(x: Tensor, weight: Tensor, weight_scale: Tensor, is_quantizing: bool, bias: Tensor | None) -> Tensor:
    """`x` [tokens, K] -> [tokens, N] in the dtype of `x`, bit for bit the reference, which may quantize `x` too."""
    if not is_quantizing:
        return functional.linear(x, dequantize_mxfp4(weight, weight_scale, x.dtype), bias)
    dequantized = dequantize_mxfp4(weight, weight_scale, torch.float32)
    product = functional.linear(mxfp4_floats(*mxfp4_groups(x)), dequantized)
    return (product if bias is None else product + bias).to(x.dtype)
