"""Linear layers in NVFP4, the weight dequantized in C."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from backends.native.kernels.compiled.dequantize_nvfp4 import dequantize_nvfp4
from backends.native.kernels.compiled.overload import compiled_op
from backends.native.kernels.reference.nvfp4_linear import nvfp4_floats, nvfp4_groups


@compiled_op
def nvfp4_linear(
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    global_scale: Tensor,
    input_scale: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """`x` [tokens, K] -> [tokens, N] in the dtype of `x`, bit for bit the reference, which quantizes `x` too."""
    if input_scale is None:
        return functional.linear(x, dequantize_nvfp4(weight, weight_scale, global_scale, x.dtype), bias)
    dequantized = dequantize_nvfp4(weight, weight_scale, global_scale, torch.float32)
    product = functional.linear(nvfp4_floats(*nvfp4_groups(x, input_scale), input_scale), dequantized)
    return (product if bias is None else product + bias).to(x.dtype)
