"""Blocks of every ggml type against the library gguf, bit for bit."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type

from backends.native.errors import KernelError, ShapeError
from backends.native.kernels.reference.dequantize_gguf import CHUNK_ELEMENTS, dequantize_gguf
from backends.native.kernels.reference.ggml_types import GGML_TYPES

FLOATS = [Type.F32, Type.F16, Type.BF16]
KNOWN = sorted({*FLOATS, *gguf.quants._type_traits})
UNKNOWN = [Type.Q8_1, Type.Q8_K, Type.Q1_0, Type.I32, Type.F64]


def can_be_quantized(ggml_type: Type) -> bool:
    try:
        gguf.quantize(np.zeros((1, 256), np.float32), ggml_type)
    except NotImplementedError:
        return False
    return True


def by_library(blocks: np.ndarray, ggml_type: Type) -> torch.Tensor:
    with np.errstate(all="ignore"):
        return torch.from_numpy(np.array(gguf.dequantize(blocks, ggml_type)))


def assert_same_bits(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.dtype == expected.dtype == torch.float32
    assert found.shape == expected.shape
    is_nan = expected.isnan()
    assert torch.equal(found.isnan(), is_nan)
    assert torch.equal(found.view(torch.int32)[~is_nan], expected.view(torch.int32)[~is_nan])


@pytest.mark.parametrize("ggml_type", KNOWN, ids=lambda t: t.name)
def test_random_bytes_are_the_same_numbers_bit_for_bit(ggml_type: Type):
    size = GGML_TYPES[ggml_type].block_bytes
    blocks = np.random.default_rng(ggml_type).integers(0, 256, (64, 4 * size), dtype=np.uint8)
    assert_same_bits(dequantize_gguf(torch.from_numpy(blocks), ggml_type, torch.float32), by_library(blocks, ggml_type))


@pytest.mark.parametrize("ggml_type", KNOWN, ids=lambda t: t.name)
def test_infinite_subnormal_and_zero_scales_are_the_same_numbers(ggml_type: Type):
    size = GGML_TYPES[ggml_type].block_bytes
    special = (0x00, 0x01, 0x7C, 0x7F, 0x80, 0xFC, 0xFF)
    blocks = np.random.default_rng(2).integers(0, 256, (len(special) * size, size), dtype=np.uint8)
    # Each place of a block meets each special byte, alone and with the next place, so that every field does.
    for row in range(len(blocks)):
        place, byte = row % size, special[row // size]
        blocks[row, place] = byte
        blocks[row, (place + row % 2) % size] = byte
    assert_same_bits(dequantize_gguf(torch.from_numpy(blocks), ggml_type, torch.float32), by_library(blocks, ggml_type))


@pytest.mark.parametrize("ggml_type", [t for t in KNOWN if can_be_quantized(t)], ids=lambda t: t.name)
def test_quantized_values_come_back_as_the_library_gives_them(ggml_type: Type):
    values = np.random.default_rng(1).standard_normal((4, 512)).astype(np.float32)
    blocks = gguf.quantize(values, ggml_type).reshape(4, -1).view(np.uint8)
    found = dequantize_gguf(torch.from_numpy(blocks), ggml_type, torch.float32)
    assert_same_bits(found, by_library(blocks, ggml_type))
    assert torch.nn.functional.cosine_similarity(found.flatten(), torch.from_numpy(values).flatten(), 0) > 0.6


@pytest.mark.parametrize("ggml_type", KNOWN, ids=lambda t: t.name)
def test_a_shorter_float_is_rounded_once(ggml_type: Type):
    size = GGML_TYPES[ggml_type].block_bytes
    blocks = torch.randint(0, 256, (8, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    exact = dequantize_gguf(blocks, ggml_type, torch.float32)
    for dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(dequantize_gguf(blocks, ggml_type, dtype).nan_to_num(), exact.to(dtype).nan_to_num())


def test_a_tensor_longer_than_a_chunk_is_whole():
    rows = CHUNK_ELEMENTS // 512 + 3
    blocks = np.random.default_rng(0).integers(0, 256, (rows, 2 * 210), dtype=np.uint8)
    blocks[:, 208:210] = 1
    assert_same_bits(dequantize_gguf(torch.from_numpy(blocks), Type.Q6_K, torch.float32), by_library(blocks, Type.Q6_K))


def test_a_slice_of_rows_and_of_blocks_is_read_where_it_lies():
    blocks = torch.randint(0, 256, (6, 5 * 210), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    whole = dequantize_gguf(blocks, Type.Q6_K, torch.float32)
    part = dequantize_gguf(blocks[1:4, 210:630], Type.Q6_K, torch.float32)
    assert torch.equal(part.nan_to_num(), whole[1:4, 256:768].nan_to_num())


def test_the_result_does_not_share_memory_with_the_blocks():
    blocks = torch.zeros(2, 8, dtype=torch.uint8)
    result = dequantize_gguf(blocks, Type.F32, torch.float32)
    result += 1
    assert not blocks.any()


@pytest.mark.parametrize("ggml_type", UNKNOWN, ids=lambda t: t.name)
def test_a_type_the_library_cannot_dequantize_is_named(ggml_type: Type):
    with pytest.raises(KernelError, match=rf"{ggml_type.name} cannot be dequantized"):
        dequantize_gguf(torch.zeros(1, GGML_TYPES[ggml_type].block_bytes, dtype=torch.uint8), ggml_type, torch.float32)


def test_rows_that_are_no_whole_blocks_are_refused():
    with pytest.raises(ShapeError, match=r"\[2, 100\], expected torch.uint8 rows of whole blocks of 144 bytes"):
        dequantize_gguf(torch.zeros(2, 100, dtype=torch.uint8), Type.Q4_K, torch.float32)


def test_the_sizes_of_all_types_are_those_of_the_library():
    sizes = {t.value: gguf.GGML_QUANT_SIZES[t] for t in Type}
    assert {number: (known.block_elements, known.block_bytes) for number, known in GGML_TYPES.items()} == sizes
    assert {number: known.name for number, known in GGML_TYPES.items()} == {t.value: t.name for t in Type}
