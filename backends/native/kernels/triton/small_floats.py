"""Float8, float4 and power-of-two scales as integers, for GPUs without these types and for the interpreter alike."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def e4m3_floats(code: tl.tensor) -> tl.tensor:
    """uint8 codes of float8_e4m3fn as float32, exactly; 0x7f and 0xff are NaN.

    The bits are those of a float16 whose exponent is 8 too small; float16 keeps its subnormals on every GPU.
    """
    magnitude = (code & 0x7F).to(tl.uint16)
    half = (magnitude << 7) | ((code & 0x80).to(tl.uint16) << 8)
    value = half.to(tl.float16, bitcast=True).to(tl.float32) * 256.0
    return tl.where(magnitude == 0x7F, float("nan"), value)


@triton.jit  # type: ignore[untyped-decorator]
def e4m3_codes(value: tl.tensor) -> tl.tensor:
    """float32 as uint8 codes of float8_e4m3fn, rounded to nearest even and saturated at 448; NaN stays NaN."""
    bits = value.to(tl.uint32, bitcast=True)
    magnitude = bits & 0x7FFFFFFF
    normal = ((magnitude + 0x7FFFF + ((magnitude >> 20) & 1)) >> 20) - (120 << 3)
    # In 2**14 <= y < 2**15 float32 has steps of 2**-9, those of subnormals, so the sum is rounded by the addition.
    subnormal = (magnitude.to(tl.float32, bitcast=True) + 16384.0).to(tl.uint32, bitcast=True) - 0x46800000
    code = tl.where(magnitude < 0x3C800000, subnormal, normal)
    code = tl.where(magnitude >= 0x43E00000, 0x7E, code)
    code = tl.where(magnitude > 0x7F800000, 0x7F, code)
    return (code | ((bits >> 24) & 0x80)).to(tl.uint8)


@triton.jit  # type: ignore[untyped-decorator]
def e2m1_floats(code: tl.tensor) -> tl.tensor:
    """Codes 0..15 of float4_e2m1 as float32, exactly: the bits of a float16 whose exponent is 14 too small."""
    half = ((code & 0x7).to(tl.uint16) << 9) | ((code & 0x8).to(tl.uint16) << 12)
    return half.to(tl.float16, bitcast=True).to(tl.float32) * 16384.0


@triton.jit  # type: ignore[untyped-decorator]
def rounded_to_e2m1(value: tl.tensor) -> tl.tensor:
    """float32 rounded to the nearest float4_e2m1, ties to even, saturated at 6; still float32."""
    size = tl.abs(value)
    # Halves below 2, wholes below 4, twos above: the steps that each middle between two neighbours adds.
    rounded = 0.5 * (size > 0.25).to(tl.float32) + 0.5 * (size >= 0.75).to(tl.float32)
    rounded += 0.5 * (size > 1.25).to(tl.float32) + 0.5 * (size >= 1.75).to(tl.float32)
    rounded += (size > 2.5).to(tl.float32) + (size >= 3.5).to(tl.float32) + 2.0 * (size > 5.0).to(tl.float32)
    return tl.where(value < 0, -rounded, rounded)


@triton.jit  # type: ignore[untyped-decorator]
def e8m0_floats(exponent: tl.tensor) -> tl.tensor:
    """uint8 exponents as float32 powers of two, 2**(e - 127); 255 is NaN."""
    bits = exponent.to(tl.uint32) << 23
    bits = tl.where(exponent == 0, 0x00400000, bits)  # 2**-127 is a subnormal of float32
    return tl.where(exponent == 255, float("nan"), bits.to(tl.float32, bitcast=True))


@triton.jit  # type: ignore[untyped-decorator]
def rounded_to_even(value: tl.tensor) -> tl.tensor:
    """float32 of less than 2**22 in size as the nearest whole number, halves to even."""
    return (value + 12582912.0) - 12582912.0
