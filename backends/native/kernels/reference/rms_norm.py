"""Root mean square norm over the last dimension, plain and gated."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from backends.native.kernels.op import reference_op


def _normalized(x: Tensor, eps: float) -> Tensor:
    wide = x.float()
    return wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)


@reference_op
def rms_norm(x: Tensor, weight: Tensor, eps: float, is_zero_centered: bool) -> Tensor:
    """`x` [..., size] normalized in float32, times `weight` [size] (plus one if zero-centered), in the dtype of `x`."""
    gain = weight.float() + 1.0 if is_zero_centered else weight.float()
    return (_normalized(x, eps) * gain).to(x.dtype)


@reference_op
def rms_norm_gated(x: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`x` [..., size] normalized, times `weight` [size], times `silu(gate)`, in the dtype of `x`."""
    normalized = weight * _normalized(x, eps).to(x.dtype)
    return (normalized * functional.silu(gate.float())).to(x.dtype)
