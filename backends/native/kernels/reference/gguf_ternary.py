"""Dequantizes ggml's ternary types: TQ1_0 with five digits of base three in a byte, TQ2_0 with four of two bits."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.native.kernels.reference.gguf_bytes import half, shifted


def tq1_0(blocks: Tensor) -> Tensor:
    """Runs of 32, 16 and 4 bytes, of which the last holds four digits; scale."""
    parts = (_digits(blocks[:, :32], 5), _digits(blocks[:, 32:48], 5), _digits(blocks[:, 48:52], 4))
    return half(blocks, 52) * (torch.cat(parts, 1).float() - 1)


def _digits(x: Tensor, count: int) -> Tensor:
    """The digits of bytes that stand for fractions in base three: all first digits, then all second ones."""
    powers = torch.tensor([3**place for place in range(count)], dtype=torch.int32, device=x.device)
    fractions = (x.int().unsqueeze(1) * powers.unsqueeze(1)) & 255
    return ((fractions * 3) >> 8).flatten(1)


def tq2_0(blocks: Tensor) -> Tensor:
    """Two runs of 32 bytes, four values of two bits in each; scale."""
    quants = shifted(blocks[:, :64].reshape(-1, 2, 32), (0, 2, 4, 6), 3).flatten(1)
    return half(blocks, 64) * (quants.float() - 1)


TERNARY = {"TQ1_0": tq1_0, "TQ2_0": tq2_0}
