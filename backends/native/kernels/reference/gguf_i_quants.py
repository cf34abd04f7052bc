"""Dequantizes ggml's i-quants: groups that are points of a grid, with signs and scales, and the non-linear IQ4."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from backends.native.kernels.reference.gguf_bytes import bits, fields, half, shifted, words

IQ4_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
DELTA = 0.125
LOWS = (0, 4)
SEVENS = (0, 7, 14, 21)
THREES = (0, 3, 6, 9)


@lru_cache(maxsize=32)
def grid(name: str, device: torch.device) -> Tensor:
    """The points of a type's grid, float32 [points, 4 or 8], from the tables of the library gguf."""
    from gguf import quants

    owner = getattr(quants, name)
    owner.init_grid()
    return torch.from_numpy(owner.grid.reshape(owner.grid_shape)).clone().to(device)


def iq2_xxs(blocks: Tensor) -> Tensor:
    """Scale; per 32 elements four points, four sign words and a scale of four bits."""
    pairs = words(blocks, 2, 66, torch.int32).reshape(-1, 8, 2)
    points = grid("IQ2_XXS", blocks.device)[blocks[:, 2:66].reshape(-1, 8, 8)[..., :4].long()]
    scale = half(blocks, 0) * (0.5 + ((pairs[..., 1] >> 28) & 15)) * 0.25
    return _signed(scale.unsqueeze(2), points, _parity_signs(fields(pairs[..., 1], SEVENS, 127)))


def iq2_xs(blocks: Tensor) -> Tensor:
    """Scale; words of a point and its signs; scales of four bits per 16 elements."""
    pairs = words(blocks, 2, 66, torch.int16).int()
    points = grid("IQ2_XS", blocks.device)[(pairs & 511).long()].view(-1, 16, 2, 8)
    signs = _parity_signs((pairs >> 9) & 127).view(-1, 16, 2, 8)
    return _signed(_scale_of_16(blocks, 66).unsqueeze(2), points, signs)


def iq2_s(blocks: Tensor) -> Tensor:
    """Scale; points of ten bits, signs, scales of four bits per 16 elements."""
    index = blocks[:, 2:34].int() | (fields(blocks[:, 66:74], (0, 2, 4, 6), 3).flatten(1).int() << 8)
    points = grid("IQ2_S", blocks.device)[index.long()].view(-1, 16, 2, 8)
    return _signed(_scale_of_16(blocks, 74).unsqueeze(2), points, bits(blocks[:, 34:66]).view(-1, 16, 2, 8))


def iq3_xxs(blocks: Tensor) -> Tensor:
    """Scale; points of four elements; per 32 elements four sign words and a scale of four bits."""
    points = grid("IQ3_XXS", blocks.device)[blocks[:, 2:66].long()].view(-1, 8, 4, 8)
    packed = words(blocks, 66, 98, torch.int32)
    scale = half(blocks, 0) * (0.5 + ((packed >> 28) & 15)) * 0.5
    return _signed(scale.unsqueeze(2), points, _parity_signs(fields(packed, SEVENS, 127)))


def iq3_s(blocks: Tensor) -> Tensor:
    """Scale; points of nine bits, signs, odd scales per 32 elements."""
    index = blocks[:, 2:66].int() | (bits(blocks[:, 66:74]).int() << 8)
    points = grid("IQ3_S", blocks.device)[index.long()].view(-1, 8, 4, 8)
    scale = half(blocks, 0) * (1 + 2 * fields(blocks[:, 106:110], LOWS, 15).flatten(1))
    return _signed(scale.unsqueeze(2), points, bits(blocks[:, 74:106]).view(-1, 8, 4, 8))


def iq1_s(blocks: Tensor) -> Tensor:
    """Scale; points of eleven bits; per 32 elements an odd scale and whether the shift is up or down."""
    high = words(blocks, 34, 50, torch.int16).int()
    index = blocks[:, 2:34].int() | (fields(high, THREES, 7).flatten(1) << 8)
    points = grid("IQ1_S", blocks.device)[index.long()].view(-1, 8, 32)
    scale = half(blocks, 0) * (2 * ((high >> 12) & 7) + 1)
    delta = DELTA * (1 - 2 * ((high >> 15) & 1))
    return (scale.unsqueeze(2) * (points + delta.unsqueeze(2))).flatten(1)


def iq1_m(blocks: Tensor) -> Tensor:
    """Points of eleven bits with a shift each, odd scales per 16 elements, and the scale in four nibbles of theirs."""
    packed = words(blocks, 48, 56, torch.int16).int()
    nibbles = ((packed >> 12) & 15) << torch.tensor((0, 4, 8, 12), dtype=torch.int32, device=blocks.device)
    scale = nibbles.sum(1, keepdim=True).to(torch.int16).view(torch.float16).float()
    high = fields(blocks[:, 32:48], LOWS, 15).flatten(1).int()
    index = blocks[:, :32].int() | ((high & 7) << 8)
    points = grid("IQ1_S", blocks.device)[index.long()]
    scales = (scale * (2 * fields(packed, THREES, 7).flatten(1) + 1)).repeat_interleave(2, 1)
    delta = DELTA * (1 - 2 * (high >> 3))
    return (scales.unsqueeze(2) * (points + delta.unsqueeze(2))).flatten(1)


def iq4_nl(blocks: Tensor) -> Tensor:
    """Scale; nibbles that choose one of sixteen values."""
    return half(blocks, 0) * _iq4_values(shifted(blocks[:, 2:18], LOWS, 15).flatten(1))


def iq4_xs(blocks: Tensor) -> Tensor:
    """Scale; scales of six bits less 32 per 32 elements, their high bits first; nibbles as in IQ4_NL."""
    high = fields(words(blocks, 2, 4, torch.int16).int(), tuple(range(0, 16, 2)), 3).flatten(1)
    low = fields(blocks[:, 4:8], LOWS, 15).flatten(1)
    scale = half(blocks, 0) * ((low | (high << 4)) - 32)
    codes = shifted(blocks[:, 8:136].reshape(-1, 8, 16), LOWS, 15).flatten(2)
    return (scale.unsqueeze(2) * _iq4_values(codes)).flatten(1)


def _iq4_values(codes: Tensor) -> Tensor:
    return torch.tensor(IQ4_VALUES, dtype=torch.float32, device=codes.device)[codes.long()]


def _scale_of_16(blocks: Tensor, start: int) -> Tensor:
    """[n, 16]: the block's scale times the nibbles of eight bytes plus a half, over four."""
    return half(blocks, 0) * (0.5 + fields(blocks[:, start : start + 8], LOWS, 15).flatten(1)) * 0.25


def _parity_signs(seven: Tensor) -> Tensor:
    """Sign bits of eight elements from seven: the last makes their number even."""
    first = fields(seven, tuple(range(7)), 1)
    return torch.cat((first, first.sum(-1, keepdim=True) & 1), -1)


def _signed(scale: Tensor, points: Tensor, negative: Tensor) -> Tensor:
    """`scale` [n, groups, 1] × `points` [n, groups, points, 8], where `negative` is 1: the opposite."""
    return (scale.unsqueeze(3) * points * (1 - 2 * negative.float())).flatten(1)


I_QUANTS = {
    "IQ1_S": iq1_s, "IQ1_M": iq1_m, "IQ2_XXS": iq2_xxs, "IQ2_XS": iq2_xs, "IQ2_S": iq2_s,
    "IQ3_XXS": iq3_xxs, "IQ3_S": iq3_s, "IQ4_NL": iq4_nl, "IQ4_XS": iq4_xs,
}  # fmt: skip
