"""Weights of small unsigned integers with one scale and zero point per group of inputs."""

from __future__ import annotations

import torch
from torch import Tensor


def dequantize_groups(codes: Tensor, zeros: Tensor | int, scales: Tensor, g_idx: Tensor | None) -> Tensor:
    """`(codes - zeros) * scales` in float32: codes [N, K], scales and zeros [N, groups] (or one zero for all).

    `g_idx` [K] is the group of each input; None where the groups stand one after the other.
    """
    columns, groups = codes.shape[1], scales.shape[1]
    index = torch.arange(columns, device=codes.device) // (columns // groups) if g_idx is None else g_idx.long()
    zeros_of_column = zeros[:, index] if isinstance(zeros, Tensor) else zeros
    return (codes - zeros_of_column).float() * scales.float()[:, index]
