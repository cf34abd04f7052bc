"""GGUF blocks dequantized in C against the library gguf, bit for bit, on blocks of any bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, dequantize
from gguf.constants import GGML_QUANT_SIZES

from backends.native.errors import ShapeError
from backends.native.kernels.compiled import library
from backends.native.kernels.compiled.dequantize_gguf import IN_C, dequantize_gguf

LARGE_ENOUGH_TO_STREAM_BYTES = 9 << 20


@pytest.fixture(autouse=True)
def compiled():
    if library.loaded().library is None:
        pytest.skip(f"no C kernels: {library.why_not()}")


def any_blocks(name, rows, blocks):
    """Rows of whole blocks of any bytes: scales are NaN, infinite and subnormal as well."""
    size = GGML_QUANT_SIZES[GGMLQuantizationType[name]][1]
    return np.random.default_rng(7).integers(0, 256, (rows, blocks * size), dtype=np.uint8)


def expected_of(name, blocks):
    with np.errstate(all="ignore"):
        return torch.from_numpy(dequantize(blocks, GGMLQuantizationType[name]))


def assert_same_bits(found, expected):
    integers = torch.int32 if found.dtype == torch.float32 else torch.int16
    is_same = found.view(integers) == expected.contiguous().view(integers)
    assert bool((is_same | (found.isnan() & expected.isnan())).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", sorted(IN_C))
def test_blocks_of_any_bytes_are_what_gguf_says(name, dtype):
    blocks = any_blocks(name, 37, 9)
    found = dequantize_gguf(torch.from_numpy(blocks), GGMLQuantizationType[name].value, dtype)
    assert found.dtype == dtype
    assert_same_bits(found, expected_of(name, blocks).to(dtype))


@pytest.mark.parametrize("name", ["Q4_0", "Q6_K"])
def test_many_blocks_written_past_the_caches_and_by_several_threads_are_the_same(name):
    elements = GGML_QUANT_SIZES[GGMLQuantizationType[name]][0]
    blocks = any_blocks(name, LARGE_ENOUGH_TO_STREAM_BYTES // 4 // elements, 1)
    expected, before = expected_of(name, blocks), torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found = dequantize_gguf(torch.from_numpy(blocks), GGMLQuantizationType[name].value, torch.float32)
            assert_same_bits(found, expected)
    finally:
        torch.set_num_threads(before)


def test_blocks_at_odd_addresses_and_of_every_second_row_are_read_where_they_are():
    blocks = any_blocks("Q5_K", 6, 2)
    memory = torch.zeros(6 * 353 + 1, dtype=torch.uint8)
    rows = memory[1:].view(6, 353)[:, :352]
    rows.copy_(torch.from_numpy(blocks))
    number = GGMLQuantizationType.Q5_K.value
    assert_same_bits(dequantize_gguf(rows, number, torch.float32), expected_of("Q5_K", blocks))
    assert_same_bits(dequantize_gguf(rows[::2], number, torch.float32), expected_of("Q5_K", blocks[::2]))


def test_no_rows_and_stacked_rows_keep_their_shape():
    number = GGMLQuantizationType.Q8_0.value
    assert dequantize_gguf(torch.empty(0, 68, dtype=torch.uint8), number, torch.float32).shape == (0, 64)
    assert dequantize_gguf(torch.zeros(3, 2, 68, dtype=torch.uint8), number, torch.bfloat16).shape == (3, 2, 64)


def test_rows_that_are_no_whole_blocks_are_an_error():
    with pytest.raises(ShapeError, match="whole blocks of 34 bytes"):
        dequantize_gguf(torch.zeros(2, 35, dtype=torch.uint8), GGMLQuantizationType.Q8_0.value, torch.float32)


def test_a_type_that_is_not_written_in_c_goes_to_the_reference():
    blocks = any_blocks("IQ2_XS", 3, 2)
    assert "IQ2_XS" not in IN_C
    found = dequantize_gguf(torch.from_numpy(blocks), GGMLQuantizationType.IQ2_XS.value, torch.float32)
    assert_same_bits(found, expected_of("IQ2_XS", blocks))
