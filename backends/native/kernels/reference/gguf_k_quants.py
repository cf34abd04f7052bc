"""Dequantizes ggml's k-quants: blocks of 256 in groups whose scales are quantized themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.native.kernels.reference.gguf_bytes import fields, half, shifted, words

PAIRS = (0, 2, 4, 6)


def q2_k(blocks: Tensor) -> Tensor:
    """Scales and minima as nibbles, quants of two bits in halves of 128, scale, scale of the minima."""
    scales = blocks[:, :16]
    quants = shifted(blocks[:, 16:80].reshape(-1, 2, 32), PAIRS, 3).reshape(-1, 16, 16)
    return _affine(half(blocks, 80), scales & 15, quants, half(blocks, 82), scales >> 4)


def q3_k(blocks: Tensor) -> Tensor:
    """Third bits (set: nothing is taken off), quants of two bits, scales of six bits less 32, scale."""
    third = shifted(blocks[:, :32], tuple(range(8)), 1)
    low = shifted(blocks[:, 32:96].reshape(-1, 2, 32), PAIRS, 3).reshape(-1, 8, 32)
    packed = blocks[:, 96:108]
    scales = shifted(packed[:, :8], (0, 4), 15).flatten(1) | (shifted(packed[:, 8:], PAIRS, 3).flatten(1) << 4)
    quants = (low.float() + 4 * third.float() - 4).reshape(-1, 16, 16)
    return ((half(blocks, 108) * (scales.float() - 32)).unsqueeze(2) * quants).flatten(1)


def q4_k(blocks: Tensor) -> Tensor:
    """Scale, scale of the minima, scales and minima of six bits, nibbles in runs of 32 bytes."""
    scales, minima = _scales_and_minima(blocks[:, 4:16])
    quants = _nibble_runs(blocks[:, 16:144])
    return _affine(half(blocks, 0), scales, quants, half(blocks, 2), minima)


def q5_k(blocks: Tensor) -> Tensor:
    """As Q4_K, with a fifth bit for each group in a byte of 32."""
    scales, minima = _scales_and_minima(blocks[:, 4:16])
    fifth = shifted(blocks[:, 16:48], tuple(range(8)), 1)
    quants = _nibble_runs(blocks[:, 48:176]) | (fifth << 4)
    return _affine(half(blocks, 0), scales, quants, half(blocks, 2), minima)


def q6_k(blocks: Tensor) -> Tensor:
    """Low nibbles and high pairs of bits in halves of 128, signed scales per 16, scale; less 32."""
    low = shifted(blocks[:, :128].reshape(-1, 2, 64), (0, 4), 15).reshape(-1, 16, 16)
    high = shifted(blocks[:, 128:192].reshape(-1, 2, 32), PAIRS, 3).reshape(-1, 16, 16)
    scales = half(blocks, 208) * words(blocks, 192, 208, torch.int8)
    return (scales.unsqueeze(2) * ((low | (high << 4)).float() - 32)).flatten(1)


def _affine(scale: Tensor, scales: Tensor, quants: Tensor, min_scale: Tensor, minima: Tensor) -> Tensor:
    """Scale × scales × quants - min_scale × minima, per group; the products are exact in float32."""
    return ((scale * scales).unsqueeze(2) * quants - (min_scale * minima).unsqueeze(2)).flatten(1)


def _nibble_runs(x: Tensor) -> Tensor:
    """[n, 128] -> [n, 8, 32]: of 32 bytes first the low nibbles, then the high ones."""
    return shifted(x.reshape(-1, 4, 32), (0, 4), 15).flatten(1, 2)


def _scales_and_minima(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Eight scales and eight minima of six bits from twelve bytes.

    The first four of each are the low six bits of bytes 0-3 and 4-7. The last four have their low nibbles in bytes
    8-11 (scale low, minimum high) and their top bits where bytes 0-7 have two to spare.
    """
    first, rest = packed[:, :8], packed[:, 8:]
    low, top = first & 63, (first >> 6) << 4
    nibbles = fields(rest, (0, 4), 15)
    scales = torch.cat((low[:, :4], nibbles[..., 0] | top[:, :4]), 1)
    minima = torch.cat((low[:, 4:], nibbles[..., 1] | top[:, 4:]), 1)
    return scales, minima


K_QUANTS = {"Q2_K": q2_k, "Q3_K": q3_k, "Q4_K": q4_k, "Q5_K": q5_k, "Q6_K": q6_k}
