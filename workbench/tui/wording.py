"""Numbers, sizes, types and names as every screen writes them."""

from __future__ import annotations

from collections.abc import Sequence

_DTYPES = {
    "bfloat16": "bf16",
    "float16": "f16",
    "float32": "f32",
    "float64": "f64",
    "float8_e4m3fn": "e4m3",
    "float8_e5m2": "e5m2",
    "float8_e8m0fnu": "e8m0",
    "float4_e2m1fn_x2": "e2m1",
    "uint8": "u8",
    "int8": "int8",
    "int32": "i32",
    "int64": "i64",
}
_HEADER_DTYPES = {
    "BF16": "bf16",
    "F16": "f16",
    "F32": "f32",
    "F64": "f64",
    "F8_E4M3": "e4m3",
    "F8_E5M2": "e5m2",
    "F8_E8M0": "e8m0",
    "F4": "e2m1",
    "U8": "u8",
    "I8": "int8",
    "I32": "i32",
    "I64": "i64",
}


def dtype(name: str) -> str:
    """The short spelling used in columns: `torch.float8_e4m3fn` and `F8_E4M3` are both `e4m3`."""
    bare = name.removeprefix("torch.")
    return _DTYPES.get(bare) or _HEADER_DTYPES.get(bare) or bare


def shape(sizes: Sequence[int]) -> str:
    """`192×512`; a scalar is `[]`."""
    return "×".join(str(size) for size in sizes) or "[]"


def bracketed(sizes: Sequence[int]) -> str:
    """`[192, 512]`, as a program prints it."""
    return "[" + ", ".join(str(size) for size in sizes) + "]"


def count(number: int) -> str:
    """`12,345`."""
    return f"{number:,}"


def some(number: int, noun: str, plural: str = "") -> str:
    """`1 tensor`, `412 tensors`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def size(bytes_: float) -> str:
    """Decimal units with two or three digits: `768 B`, `3.1 kB`, `38 MB`."""
    value = float(bytes_)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def milliseconds(ns: int | None) -> str:
    """Milliseconds with two digits, for a column headed ms; `…` while it runs."""
    if ns is None:
        return "…"
    if 0 < ns < 5_000:
        return "<.01"
    return f"{ns / 1e6:,.2f}" if ns < 1e8 else f"{ns / 1e6:,.0f}"


def microseconds(ns: int | None) -> str:
    """Whole microseconds; one digit below ten."""
    if ns is None:
        return "…"
    return f"{ns / 1e3:,.1f}" if ns < 10_000 else f"{ns / 1e3:,.0f}"


def duration(ns: int) -> str:
    """`41 ms`, `1.2 s`, `3 min`."""
    if ns < 1_000_000:
        return f"{ns / 1e3:.0f} µs"
    if ns < 1_000_000_000:
        return f"{ns / 1e6:.0f} ms"
    return f"{ns / 1e9:.1f} s" if ns < 120_000_000_000 else f"{ns / 6e10:.0f} min"


def age(seconds: float) -> str:
    """How long ago: `now`, `2 min`, `1 h`, `3 d`."""
    if seconds < 60:
        return "now"
    for unit, length, until in (("min", 60, 3600), ("h", 3600, 86_400)):
        if seconds < until:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds // 86_400:.0f} d"


def leaf(name: str, parts: int = 1) -> tuple[str, str]:
    """A dotted name as (front, last `parts` parts)."""
    pieces = name.split(".")
    return ".".join(pieces[:-parts]), ".".join(pieces[-parts:])


def short_path(where: str) -> str:
    """The last two parts of a path with its line: `layers/linear.py:418`."""
    return "/".join(where.rsplit("/", 2)[-2:])


def short_name(dotted: str) -> str:
    """The last two parts of a dotted name: `MergedColumnParallelLinear.weight_loader`."""
    return leaf(dotted.replace(".<locals>", ""), 2)[1]


def value(number: float) -> str:
    """A tensor's value in at most eight characters: `.00118`, `-1.25`, `6.5e-05`."""
    text = f"{number:.3g}"
    if text.startswith(("0.", "-0.")):
        text = text.replace("0.", ".", 1)
    return text
