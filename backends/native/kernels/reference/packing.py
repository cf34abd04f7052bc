"""Small numbers in larger words: integers in int32, pairs of nibbles in bytes, and the values of float4 and e8m0."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

WORD_BITS = 32
E2M1_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
E2M1_MAX = E2M1_VALUES[-1]
E8M0_BIAS, E8M0_NAN = 127, 255
_SIGN = 8


def pack_int32(values: Tensor, bits: int, dim: int, order: Sequence[int] | None = None) -> Tensor:
    """Unsigned `values` below 2**bits -> int32, 32 / bits of them in a word along `dim`, the first in the lowest bits.

    `order[i]` says which value of its word stands at the i-th place; the size along `dim` must be whole words.
    """
    places = _places(bits, order)
    last = values.movedim(dim, -1)
    words = last.reshape(*last.shape[:-1], -1, len(places))[..., places].long()
    shifts = torch.arange(len(places), device=values.device) * bits
    packed: Tensor = (words << shifts).sum(-1).to(torch.int32).movedim(-1, dim)
    return packed.contiguous()


def unpack_int32(packed: Tensor, bits: int, dim: int, order: Sequence[int] | None = None) -> Tensor:
    """The inverse of `pack_int32`: int32 values from 0 to 2**bits - 1."""
    places = _places(bits, order)
    shifts = torch.arange(len(places), device=packed.device) * bits
    words = (packed.movedim(dim, -1).long().unsqueeze(-1) >> shifts) & (2**bits - 1)
    inverse = sorted(range(len(places)), key=places.__getitem__)
    values: Tensor = words[..., inverse].flatten(-2).to(torch.int32).movedim(-1, dim)
    return values


def _places(bits: int, order: Sequence[int] | None) -> list[int]:
    return list(order) if order is not None else list(range(WORD_BITS // bits))


def pack_nibbles(codes: Tensor) -> Tensor:
    """Codes below 16 [..., K] -> uint8 [..., K / 2]; the first of a pair in the low nibble."""
    codes = codes.to(torch.uint8)
    return codes[..., 0::2] | (codes[..., 1::2] << 4)


def unpack_nibbles(packed: Tensor) -> Tensor:
    """uint8 [..., K / 2] -> int64 codes [..., K]."""
    return torch.stack((packed & 0xF, packed >> 4), dim=-1).flatten(-2).long()


def e2m1_codes(x: Tensor) -> Tensor:
    """The nearest float4_e2m1 of `x` as codes 0..15, ties to even, saturated at 6."""
    values = torch.tensor(E2M1_VALUES, device=x.device)
    middles = (values[1:] + values[:-1]) / 2
    # A middle belongs to its even neighbour: above every second one that is the upper.
    middles[1::2] = torch.nextafter(middles[1::2], torch.zeros_like(middles[1::2]))
    return torch.bucketize(x.float().abs().contiguous(), middles) + _SIGN * (x < 0)


def e2m1_floats(codes: Tensor) -> Tensor:
    """Codes 0..15 as float32."""
    values = torch.tensor((*E2M1_VALUES, *(-value for value in E2M1_VALUES)), device=codes.device)
    return values[codes]


def e8m0_floats(exponents: Tensor) -> Tensor:
    """uint8 exponents as float32 powers of two, 2**(e - 127); 255 is NaN."""
    powers = torch.ldexp(torch.ones_like(exponents, dtype=torch.float32), exponents.int() - E8M0_BIAS)
    return powers.masked_fill(exponents == E8M0_NAN, torch.nan)
