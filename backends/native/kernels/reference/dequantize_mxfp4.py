"""Weights in MXFP4 as plain floats."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.native.kernels.op import reference_op
from backends.native.kernels.reference.mxfp4_linear import mxfp4_floats
from backends.native.kernels.reference.packing import unpack_nibbles


@reference_op
def dequantize_mxfp4(weight: Tensor, weight_scale: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 [N, K / 2] and uint8 exponents [N, K / 32] -> [N, K] in `dtype`; the exponent 255 makes NaN."""
    return mxfp4_floats(unpack_nibbles(weight), weight_scale).to(dtype)
