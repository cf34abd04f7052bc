"""Data types as torch and OCP spell them, from the spelling of a header, and which of them are quantized."""

from __future__ import annotations

from functools import lru_cache

_SPELLED = {
    "BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64", "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu", "F4": "float4_e2m1",
    "I8": "int8", "U8": "uint8", "I16": "int16", "U16": "uint16", "I32": "int32", "U32": "uint32", "I64": "int64",
    "U64": "uint64",
}  # fmt: skip
_BITS = {"bool": 8, "float4_e2m1": 4}
_PLAIN = frozenset({"bfloat16", "float16", "float32", "float64"})


def spelled(dtype: str) -> str:
    """The dtype as torch spells it: "F8_E4M3" and "torch.float8_e4m3fn" → "float8_e4m3fn"; others unchanged."""
    name = dtype.removeprefix("torch.")
    return _SPELLED.get(name.upper(), name)


def is_plain(dtype: str) -> bool:
    """True for the floating types that hold a weight as it is."""
    return spelled(dtype) in _PLAIN


@lru_cache(maxsize=256)
def item_bits(dtype: str) -> int:
    """Bits of one element; 0 when the name does not tell."""
    name = spelled(dtype)
    if name in _BITS:
        return _BITS[name]
    digits = "".join(c for c in name.partition("_")[0] if c.isdigit())
    return int(digits) if digits else 0
