"""Dequantizes ggml's blocks of 32 with one scale: Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.native.kernels.reference.gguf_bytes import bits, half, shifted, words


def q4_0(blocks: Tensor) -> Tensor:
    """Scale, nibbles less 8."""
    return half(blocks, 0) * (_nibbles(blocks[:, 2:]) - 8)


def q4_1(blocks: Tensor) -> Tensor:
    """Scale, minimum, nibbles."""
    return half(blocks, 0) * _nibbles(blocks[:, 4:]) + half(blocks, 2)


def q5_0(blocks: Tensor) -> Tensor:
    """Scale, fifth bits, nibbles; less 16."""
    return half(blocks, 0) * (_nibbles(blocks[:, 6:]) + 16 * bits(blocks[:, 2:6]) - 16)


def q5_1(blocks: Tensor) -> Tensor:
    """Scale, minimum, fifth bits, nibbles."""
    return half(blocks, 0) * (_nibbles(blocks[:, 8:]) + 16 * bits(blocks[:, 4:8])) + half(blocks, 2)


def q8_0(blocks: Tensor) -> Tensor:
    """Scale, bytes."""
    return half(blocks, 0) * words(blocks, 2, 34, torch.int8)


def _nibbles(x: Tensor) -> Tensor:
    """All low nibbles, then all high ones, in float32, where a difference may be negative."""
    return shifted(x, (0, 4), 15).flatten(-2).float()


LEGACY = {"Q4_0": q4_0, "Q4_1": q4_1, "Q5_0": q5_0, "Q5_1": q5_1, "Q8_0": q8_0}
