"""Rotation of the leading elements of each head by the angle of its position."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.native.kernels.op import reference_op


@reference_op
def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`x` [tokens, heads, head_dim], cos and sin [tokens, half]: elements i and i + half turn together, others stay."""
    half = cos.shape[-1]
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    first, second, rest = torch.split(x, [half, half, x.shape[-1] - 2 * half], dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)
