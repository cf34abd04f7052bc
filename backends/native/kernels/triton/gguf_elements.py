"""Single elements of ggml blocks as float32: one function per type, of the block's address and the place in it."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from backends.native.kernels.triton.small_floats import e2m1_floats


@triton.jit  # type: ignore[untyped-decorator]
def byte_at(address: tl.tensor, is_inside: tl.tensor) -> tl.tensor:
    """The bytes there as int32; 0 outside."""
    return tl.load(address, mask=is_inside, other=0).to(tl.int32)


@triton.jit  # type: ignore[untyped-decorator]
def signed_byte_at(address: tl.tensor, is_inside: tl.tensor) -> tl.tensor:
    """The int8 there as int32."""
    byte = byte_at(address, is_inside)
    return byte - ((byte & 128) << 1)


@triton.jit  # type: ignore[untyped-decorator]
def half_at(address: tl.tensor, is_inside: tl.tensor) -> tl.tensor:
    """The float16 there as float32, byte by byte: blocks of an odd size leave it at any address."""
    bits = byte_at(address, is_inside) | (byte_at(address + 1, is_inside) << 8)
    return bits.to(tl.uint16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def q4_0(block: tl.tensor, i: tl.tensor, is_inside: tl.tensor) -> tl.tensor:
    """Scale, 16 bytes with all low nibbles first; less 8."""
    nibble = (byte_at(block + 2 + i % 16, is_inside) >> (i // 16 * 4)) & 15
    return half_at(block, is_inside) * (nibble - 8).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def q4_1(block: tl.tensor, i: tl.tensor, is_inside: tl.tensor) -> tl.tensor:
    """Scale, minimum, nibbles as in Q4_0."""
    nibble = (byte_at(block + 4 + i % 16, is_inside) >> (i // 16 * 4)) & 15
    return half_at(block, is_inside) * nibble.to(tl.float32) + half_at(block + 2, is_inside)


@triton.jit  # type: ignore[untyped-decorator]
def q5_0(block: tl.tensor, i: tl.tensor, is_inside: tl.tensor) -> tl.tensor:
    """Scale, 32 fifth bits, nibbles as in Q4_0; less 16."""
    nibble = (byte_at(block + 6 + i % 16, is_inside) >> (i // 16 * 4)) & 15
    fifth = (byte_at(block + 2 + i // 8, is_inside) >> (i % 8)) & 1
    return half_at(block, is_inside) * ((nibble | (fifth << 4)) - 16).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def q5_1(block: tl.tensor, i: tl.tensor, is_inside: tl.tensor) -> tl.tensor:
    """Scale, minimum, 32 fifth bits, nibbles as in Q4_0."""
    nibble = (byte_at(block + 8 + i % 16, is_inside) >> (i // 16 * 4)) & 15
    fifth = (byte_at(block + 4 + i // 8, is_inside) >> (i % 8)) & 1
    quant = (nibble | (fifth << 4)).to(tl.float32)
    return half_at(block, is_inside) * quant + half_at(block + 2, is_inside)


@triton.jit  # type: ignore[untyped-decorator]
def q8_0(block: tl.tensor, i: tl.tensor, is_inside: tl.tensor) -> tl.tensor:
    """Scale, signed bytes."""
    return half_at(block, is_inside) * signed_byte_at(block + 2 + i, is_inside).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def two_bits(quants: tl.tensor, i: tl.tensor, is_inside: tl.tensor) -> tl.tensor:
    """Fields of two bits in halves of 128 elements and 32 bytes, as int32."""
    return (byte_at(quants + i // 128 * 32 + i % 32, is_inside) >> (i % 128 // 32 * 2)) & 3


@triton.jit  # type: ignore[untyped-decorator]
def q2_k(block: tl.tensor, i: tl.tensor, is_inside: tl.tensor) -> tl.tensor:
    """16 scales with their minima in the high nibbles, fields of two bits, scale, scale of the minima."""
    packed = byte_at(block + i // 16, is_inside)
    quant = two_bits(block + 16, i, is_inside).to(tl.float32)
    scale = half_at(block + 80, is_inside) * (packed & 15).to(tl.float32)
    return scale * quant - half_at(block + 82, is_inside) * (packed >> 4).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def q3_k(block: tl.tensor, i: tl.tensor, is_inside: tl.tensor) -> tl.tensor:
    """Third bits (set: nothing is taken off), fields of two bits, 16 scales of six bits less 32, scale."""
    third = (byte_at(block + i % 32, is_inside) >> (i // 32)) & 1
    quant = two_bits(block + 32, i, is_inside) + 4 * third - 4
    group = i // 16
    low = (byte_at(block + 96 + group % 8, is_inside) >> (group // 8 * 4)) & 15
    high = (byte_at(block + 104 + group % 4, is_inside) >> (group // 4 * 2)) & 3
    scale = ((low | (high << 4)) - 32).to(tl.float32)
    return half_at(block + 108, is_inside) * scale * quant.to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def scaled_with_minimum(block: tl.tensor, group: tl.tensor, quant: tl.tensor, is_inside: tl.tensor) -> tl.tensor:
    """Q4_K and Q5_K: scale, scale of the minima, then eight of each in six bits.

    The first four of each are the low six bits of a byte; the others have their low nibbles in the last four bytes and
    their top bits where those have two to spare. All products are exact, so that fusing them changes nothing.
    """
    packed = block + 4
    is_first = group < 4
    first = byte_at(packed + group % 4, is_inside)
    second = byte_at(packed + 4 + group % 4, is_inside)
    nibbles = byte_at(packed + 8 + group % 4, is_inside)
    scale = tl.where(is_first, first & 63, (nibbles & 15) | (first >> 6 << 4)).to(tl.float32)
    minimum = tl.where(is_first, second & 63, (nibbles >> 4) | (second >> 6 << 4)).to(tl.float32)
    scaled = half_at(block, is_inside) * scale * quant.to(tl.float32)
    return scaled - half_at(block + 2, is_inside) * minimum


@triton.jit  # type: ignore[untyped-decorator]
def nibble_of_runs(quants: tl.tensor, i: tl.tensor, is_inside: tl.tensor) -> tl.tensor:
    """Runs of 32 bytes, of each first the low nibbles, then the high ones."""
    return (byte_at(quants + i // 64 * 32 + i % 32, is_inside) >> (i // 32 % 2 * 4)) & 15


@triton.jit  # type: ignore[untyped-decorator]
def q4_k(block: tl.tensor, i: tl.tensor, is_inside: tl.tensor) -> tl.tensor:
    """Eight groups of 32 nibbles."""
    return scaled_with_minimum(block, i // 32, nibble_of_runs(block + 16, i, is_inside), is_inside)


@triton.jit  # type: ignore[untyped-decorator]
def q5_k(block: tl.tensor, i: tl.tensor, is_inside: tl.tensor) -> tl.tensor:
    """As Q4_K, with a fifth bit for each group in a byte of 32."""
    fifth = (byte_at(block + 16 + i % 32, is_inside) >> (i // 32)) & 1
    return scaled_with_minimum(block, i // 32, nibble_of_runs(block + 48, i, is_inside) | (fifth << 4), is_inside)


@triton.jit  # type: ignore[untyped-decorator]
def q6_k(block: tl.tensor, i: tl.tensor, is_inside: tl.tensor) -> tl.tensor:
    """Low nibbles in halves of 128, high pairs of bits, 16 signed scales, scale; less 32."""
    low = (byte_at(block + i // 128 * 64 + i % 64, is_inside) >> (i % 128 // 64 * 4)) & 15
    quant = (low | (two_bits(block + 128, i, is_inside) << 4)) - 32
    scale = signed_byte_at(block + 192 + i // 16, is_inside).to(tl.float32)
    return half_at(block + 208, is_inside) * scale * quant.to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def iq4_value(nibble: tl.tensor) -> tl.tensor:
    """One of -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113: a byte of two constants."""
    low = (0x0A1623314153687F >> (nibble % 8 * 8).to(tl.int64)) & 127
    high = (0x7159453526190D01 >> (nibble % 8 * 8).to(tl.int64)) & 127
    return tl.where(nibble < 8, -low, high).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def iq4_nl(block: tl.tensor, i: tl.tensor, is_inside: tl.tensor) -> tl.tensor:
    """Scale, nibbles as in Q4_0 that choose one of sixteen values."""
    nibble = (byte_at(block + 2 + i % 16, is_inside) >> (i // 16 * 4)) & 15
    return half_at(block, is_inside) * iq4_value(nibble)


@triton.jit  # type: ignore[untyped-decorator]
def iq4_xs(block: tl.tensor, i: tl.tensor, is_inside: tl.tensor) -> tl.tensor:
    """Scale, eight scales of six bits less 32, their high bits first, and nibbles as in IQ4_NL."""
    group, place = i // 32, i % 32
    high = (byte_at(block + 2 + group // 4, is_inside) >> (group % 4 * 2)) & 3
    low = (byte_at(block + 4 + group // 2, is_inside) >> (group % 2 * 4)) & 15
    scale = half_at(block, is_inside) * ((low | (high << 4)) - 32).to(tl.float32)
    nibble = (byte_at(block + 8 + group * 16 + place % 16, is_inside) >> (place // 16 * 4)) & 15
    return scale * iq4_value(nibble)


@triton.jit  # type: ignore[untyped-decorator]
def mxfp4(block: tl.tensor, i: tl.tensor, is_inside: tl.tensor) -> tl.tensor:
    """Exponent, nibbles as in Q4_0: twice a float4 times half the power of two, and no NaN among either."""
    exponent = byte_at(block, is_inside)
    bits = tl.where(exponent < 2, 0x00200000 << exponent, (exponent - 1) << 23)
    nibble = (byte_at(block + 1 + i % 16, is_inside) >> (i // 16 * 4)) & 15
    return bits.to(tl.float32, bitcast=True) * (2.0 * e2m1_floats(nibble) + 0.0)


ELEMENTS: dict[str, Any] = {
    "Q4_0": q4_0,
    "Q4_1": q4_1,
    "Q5_0": q5_0,
    "Q5_1": q5_1,
    "Q8_0": q8_0,
    "Q2_K": q2_k,
    "Q3_K": q3_k,
    "Q4_K": q4_k,
    "Q5_K": q5_k,
    "Q6_K": q6_k,
    "IQ4_NL": iq4_nl,
    "IQ4_XS": iq4_xs,
    "MXFP4": mxfp4,
}
"""By the name of a type; the others have their reference only."""
