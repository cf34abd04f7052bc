"""Root mean square norm over the last dimension."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.native.kernels.op import reference_op


def normalized(x: Tensor, eps: float) -> Tensor:
    """`x` over the root of its mean square along the last dimension, in float32."""
    wide = x.float()
    return wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)


@reference_op
def rms_norm(x: Tensor, weight: Tensor, eps: float, is_zero_centered: bool) -> Tensor:
    """`x` [..., size] normalized in float32, times `weight` [size] (plus one if zero-centered), in the dtype of `x`."""
    gain = weight.float() + 1.0 if is_zero_centered else weight.float()
    return (normalized(x, eps) * gain).to(x.dtype)
