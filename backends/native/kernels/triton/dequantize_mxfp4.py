"""Weights in MXFP4 as plain floats."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.native.kernels.reference import dequantize_mxfp4 as reference
from backends.native.kernels.reference.mxfp4_linear import GROUP
from backends.native.kernels.triton.float4 import dequantize_float4


def dequantize_mxfp4(weight: Tensor, weight_scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The reference's arguments and results, bit for bit."""
    if not weight.numel() or weight.dim() != 2:
        return reference.dequantize_mxfp4(weight, weight_scale, dtype)
    return dequantize_float4(weight, weight_scale, None, GROUP, dtype)
