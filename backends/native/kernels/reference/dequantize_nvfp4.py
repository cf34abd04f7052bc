"""Weights in NVFP4 as plain floats."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.native.kernels.op import reference_op
from backends.native.kernels.reference.nvfp4_linear import nvfp4_floats
from backends.native.kernels.reference.packing import unpack_nibbles


@reference_op
def dequantize_nvfp4(weight: Tensor, weight_scale: Tensor, global_scale: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 [N, K / 2], e4m3 scales [N, K / 16] and a float32 scale of one element -> [N, K]; rounded once, at the end.

    The scales are multiplied first, in float32.
    """
    return nvfp4_floats(unpack_nibbles(weight), weight_scale, global_scale).to(dtype)
