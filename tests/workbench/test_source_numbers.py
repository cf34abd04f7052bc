"""Numbers decoded from raw bytes against torch's own reading of the same bytes."""

from __future__ import annotations

import math
import struct

import pytest

from workbench.coverage.numbers import number


def same(value: float, expected: float) -> bool:
    return (
        math.isnan(value)
        if math.isnan(expected)
        else math.copysign(1, value) == math.copysign(1, expected) and value == expected
    )


@pytest.mark.parametrize(("spelled", "name"), [("F8_E4M3", "float8_e4m3fn"), ("F8_E5M2", "float8_e5m2")])
def test_every_byte_of_a_small_float_is_what_torch_says(spelled, name):
    import torch

    expected = torch.arange(256, dtype=torch.uint8).view(getattr(torch, name)).float().tolist()
    assert [byte for byte in range(256) if not same(number(bytes([byte]), spelled), expected[byte])] == []


def test_every_bfloat16_is_what_torch_says():
    import torch

    expected = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16).float().tolist()
    assert [n for n in range(0, 1 << 16, 7) if not same(number(struct.pack("<H", n), "BF16"), expected[n])] == []


@pytest.mark.parametrize(
    ("dtype", "form", "value"),
    [("F32", "<f", 1.5), ("F64", "<d", -2.25), ("F16", "<e", 0.5), ("I8", "<b", -7), ("U8", "<B", 250),
     ("I64", "<q", -(1 << 40)), ("BOOL", "<?", True), ("I32", "<i", -5)],
)  # fmt: skip
def test_plain_types_are_read_little_endian(dtype, form, value):
    assert number(struct.pack(form, value), dtype) == value


def test_half_a_byte_is_read_from_its_own_bits():
    table = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    for byte in range(256):
        low, high = (number(bytes([byte]), "F4", bit) for bit in (0, 4))
        for value, nibble in ((low, byte & 15), (high, byte >> 4)):
            assert abs(value) == table[nibble & 7]
            assert math.copysign(1, value) == (-1 if nibble & 8 else 1)


def test_an_exponent_alone_is_a_power_of_two():
    assert [number(bytes([n]), "F8_E8M0") for n in (0, 126, 127, 128)] == [2.0**-127, 0.5, 1.0, 2.0]
    assert math.isnan(number(b"\xff", "F8_E8M0"))


@pytest.mark.parametrize(("raw", "dtype"), [(b"\x00", "Q4_K"), (b"\x00", "F32"), (b"", "U8"), (b"\x00\x00", "BF17")])
def test_what_has_no_value_of_its_own_has_none(raw, dtype):
    assert number(raw, dtype) is None
