"""Dequantizes ggml's blocks of float4_e2m1: MXFP4 with a power of two, NVFP4 with four scales in e4m3."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.native.kernels.reference.gguf_bytes import shifted
from backends.native.kernels.reference.packing import e2m1_floats

E4M3_BIAS, E4M3_NAN = 7, 0x7F


def mxfp4(blocks: Tensor) -> Tensor:
    """Exponent, nibbles. Unlike in the OCP format, the exponent 255 is a number: ggml halves it before use."""
    return _half_of_power(blocks[:, :1].int()) * _doubled(shifted(blocks[:, 1:], (0, 4), 15).flatten(1))


def _half_of_power(exponent: Tensor) -> Tensor:
    """2**(exponent - 128) from the bits of the float32, since ldexp would pass through 2**128 or lose subnormals."""
    subnormal = torch.full_like(exponent, 0x00200000) << exponent.clamp(max=1)
    return torch.where(exponent < 2, subnormal, (exponent - 1) << 23).view(torch.float32)


def nvfp4(blocks: Tensor) -> Tensor:
    """Four scales, then 8 bytes of nibbles for each; the sign of a scale is ignored, and 0x7F is zero."""
    stored = blocks[:, :4]
    exponent, mantissa = ((stored >> 3) & 15).int(), (stored & 7).float()
    normal = torch.ldexp(1 + mantissa / 8, exponent - E4M3_BIAS)
    scale = torch.where(exponent == 0, mantissa * 2.0**-9, normal) * 0.5
    scale = scale.masked_fill(stored == E4M3_NAN, 0.0)
    codes = shifted(blocks[:, 4:].reshape(-1, 4, 8), (0, 4), 15).flatten(2)
    return (scale.unsqueeze(2) * _doubled(codes)).flatten(1)


def _doubled(codes: Tensor) -> Tensor:
    """Twice the values of float4, which are whole; a negative zero loses its sign, as an integer does."""
    return 2 * e2m1_floats(codes.long()) + 0.0


FP4 = {"MXFP4": mxfp4, "NVFP4": nvfp4}
