"""Weights in NVFP4 as plain floats, in C."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.native.kernels.compiled.fp4_groups import BYTES, dequantize_groups
from backends.native.kernels.compiled.overload import compiled_op
from backends.native.kernels.reference.dequantize_nvfp4 import dequantize_nvfp4 as reference
from backends.native.kernels.reference.nvfp4_linear import GROUP


@compiled_op
def dequantize_nvfp4(weight: Tensor, weight_scale: Tensor, global_scale: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 [N, K / 2], e4m3 scales [N, K / 16] and a float32 scale of one element -> [N, K]; rounded once, at the end.

    The scales are multiplied first, in float32. Anything else goes to the reference.
    """
    if weight_scale.dtype != torch.float8_e4m3fn or global_scale.numel() != 1 or not weight.is_cpu:
        return reference(weight, weight_scale, global_scale, dtype)
    meaning = BYTES.view(torch.float8_e4m3fn).float() * global_scale.float().reshape(())
    output = dequantize_groups(weight, weight_scale, meaning, GROUP, dtype)
    return reference(weight, weight_scale, global_scale, dtype) if output is None else output
