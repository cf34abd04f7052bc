"""Weights in NVFP4 as plain floats."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.native.kernels.reference import dequantize_nvfp4 as reference
from backends.native.kernels.reference.nvfp4_linear import GROUP
from backends.native.kernels.triton.float4 import dequantize_float4


def dequantize_nvfp4(weight: Tensor, weight_scale: Tensor, global_scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The reference's arguments and results, bit for bit."""
    if not weight.numel() or weight.dim() != 2:
        return reference.dequantize_nvfp4(weight, weight_scale, global_scale, dtype)
    return dequantize_float4(weight, weight_scale, global_scale, GROUP, dtype)
