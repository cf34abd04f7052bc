"""One number out of its raw bytes, in every type that a checkpoint file declares by itself."""

from __future__ import annotations

import math
import struct

from sessions.dtypes import spelled

_STRUCT = {
    "float16": "<e", "float32": "<f", "float64": "<d", "int8": "<b", "uint8": "<B", "int16": "<h", "uint16": "<H",
    "int32": "<i", "uint32": "<I", "int64": "<q", "uint64": "<Q", "bool": "<?",
}  # fmt: skip
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)

Number = float | int | bool


def number(raw: bytes, dtype: str, bit: int = 0) -> Number | None:
    """The value of one little-endian element; None for a type that has no value of its own, and for wrong lengths.

    `bit` is where in the first byte an element of less than a byte begins.
    """
    name = spelled(dtype)
    form = _STRUCT.get(name)
    if form is not None:
        value: Number | None = struct.unpack(form, raw)[0] if len(raw) == struct.calcsize(form) else None
        return value
    if name == "bfloat16" and len(raw) == 2:
        return float(struct.unpack("<f", b"\0\0" + raw)[0])
    if len(raw) == 1:
        return _small(raw[0], name, bit)
    return None


def after_cast(value: Number, dtype: str) -> Number | None:
    """What a value is in another floating type, rounded to the nearest, ties to even; None for other types."""
    name = spelled(dtype)
    if isinstance(value, float) and not math.isfinite(value):
        return value
    try:
        if name == "bfloat16":
            bits = int.from_bytes(struct.pack("<f", value), "little")
            bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
            return float(struct.unpack("<f", bits.to_bytes(4, "little"))[0])
        if name in {"float16", "float32", "float64"}:
            return float(struct.unpack(_STRUCT[name], struct.pack(_STRUCT[name], value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)
    return None


def _small(byte: int, name: str, bit: int) -> float | None:
    if name == "float8_e5m2":
        return float(struct.unpack("<e", bytes([0, byte]))[0])
    if name == "float8_e4m3fn":
        return _e4m3(byte)
    if name == "float8_e8m0fnu":
        return float("nan") if byte == 255 else 2.0 ** (byte - 127)
    if name == "float4_e2m1":
        nibble = byte >> bit & 15
        return -_E2M1[nibble & 7] if nibble & 8 else _E2M1[nibble]
    return None


def _e4m3(byte: int) -> float:
    """No infinities; all ones is NaN."""
    exponent, mantissa = byte >> 3 & 15, byte & 7
    if byte & 127 == 127:
        return float("nan")
    size = mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return -size if byte & 128 else size
