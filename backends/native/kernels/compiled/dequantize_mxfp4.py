"""Weights in MXFP4 as plain floats, in C."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.native.kernels.compiled.fp4_groups import BYTES, dequantize_groups
from backends.native.kernels.compiled.overload import compiled_op
from backends.native.kernels.reference.dequantize_mxfp4 import dequantize_mxfp4 as reference
from backends.native.kernels.reference.mxfp4_linear import GROUP
from backends.native.kernels.reference.packing import e8m0_floats


@compiled_op
def dequantize_mxfp4(weight: Tensor, weight_scale: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 [N, K / 2] and uint8 exponents [N, K / 32] -> [N, K] in `dtype`; the exponent 255 makes NaN."""
    is_fit = weight_scale.dtype == torch.uint8 and weight.is_cpu
    output = dequantize_groups(weight, weight_scale, e8m0_floats(BYTES), GROUP, dtype) if is_fit else None
    return reference(weight, weight_scale, dtype) if output is None else output
