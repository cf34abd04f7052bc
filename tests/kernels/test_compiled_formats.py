"""C kernels against the reference, bit for bit: every byte value, odd shapes, rows apart in memory, threads."""

from __future__ import annotations

import pytest
import torch

from backends.native.errors import ShapeError
from backends.native.kernels.compiled import library
from backends.native.kernels.compiled.dequantize_mxfp4 import dequantize_mxfp4
from backends.native.kernels.compiled.dequantize_nvfp4 import dequantize_nvfp4
from backends.native.kernels.compiled.fp8_block_linear import fp8_block_linear
from backends.native.kernels.compiled.fp8_block_moe import fp8_block_moe
from backends.native.kernels.compiled.fp8_blocks import dequantize_blocks
from backends.native.kernels.compiled.mxfp4_linear import mxfp4_linear
from backends.native.kernels.compiled.nvfp4_linear import nvfp4_linear
from backends.native.kernels.reference import dequantize_mxfp4 as mxfp4_definition
from backends.native.kernels.reference import dequantize_nvfp4 as nvfp4_definition
from backends.native.kernels.reference import fp8_block_linear as fp8_definition
from backends.native.kernels.reference import fp8_block_moe as moe_definition
from backends.native.kernels.reference import mxfp4_linear as mxfp4_linear_definition
from backends.native.kernels.reference import nvfp4_linear as nvfp4_linear_definition

E4M3, BLOCK = torch.float8_e4m3fn, (128, 128)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def compiled():
    torch.manual_seed(0)
    if library.loaded().library is None:
        pytest.skip(f"no C kernels: {library.why_not()}")


def assert_same_bits(found, expected):
    """Every NaN counts as the same: torch itself rounds them to several."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    integers = torch.int32 if found.dtype == torch.float32 else torch.int16
    is_same = found.contiguous().view(integers) == expected.contiguous().view(integers)
    assert bool((is_same | (found.isnan() & expected.isnan())).all())


def any_bytes(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def spread(*shape):
    """Scales of every magnitude down to where products are subnormal, with zeros, infinities and NaN of any bits."""
    scales = torch.randn(shape) * 2.0 ** torch.randint(-140, 120, shape)
    flat = scales.view(-1)
    if not len(flat):
        return scales
    for place, bits in enumerate((0x7FFFFFFF, 0x7F800001, 0x7F800000, 0, -0x80000000)):
        flat[place * len(flat) // 5] = torch.tensor(bits, dtype=torch.int32).view(torch.float32)
    return scales


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "block"),
    [
        ((256, 384), BLOCK),
        ((130, 200), BLOCK),
        ((5, 7), (2, 3)),
        ((3, 1), BLOCK),
        ((0, 128), BLOCK),
        ((64, 96), (1, 32)),
    ],
)
def test_fp8_blocks_equal_the_reference_for_all_bytes(dtype, shape, block):
    weight = any_bytes(*shape).view(E4M3)
    scale = spread(-(-shape[0] // block[0]), -(-shape[1] // block[1]))
    expected = fp8_definition.dequantize_blocks(weight, scale, block).to(dtype)
    assert_same_bits(dequantize_blocks(weight, scale, block, dtype), expected)


def test_every_float8_is_the_number_that_torch_makes_of_it():
    codes = torch.arange(256, dtype=torch.uint8).view(1, 256)
    found = dequantize_blocks(codes.view(E4M3), torch.ones(1, 2), BLOCK, torch.float32)
    assert_same_bits(found, codes.view(E4M3).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_weight_so_large_that_it_is_written_past_the_caches_is_the_same(dtype):
    weight, scale = any_bytes(2200, 2048).view(E4M3), torch.rand(18, 16)
    expected = fp8_definition.dequantize_blocks(weight, scale, BLOCK).to(dtype)
    assert_same_bits(dequantize_blocks(weight, scale, BLOCK, dtype), expected)


def test_threads_share_the_rows_at_the_edges_of_blocks():
    weight, scale = any_bytes(1500, 2048).view(E4M3), torch.rand(12, 16)
    expected = fp8_definition.dequantize_blocks(weight, scale, BLOCK)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert_same_bits(dequantize_blocks(weight, scale, BLOCK, torch.float32), expected)
    finally:
        torch.set_num_threads(before)


def test_rows_that_lie_apart_and_columns_that_do_are_read_where_they_are():
    weight, scale = any_bytes(256, 513).view(E4M3), torch.rand(2, 2)
    for part in (weight[:, 3:259], weight[:, :256], weight[:, 1::2], weight[:256, :256].t()):
        expected = fp8_definition.dequantize_blocks(part, scale, BLOCK).bfloat16()
        assert_same_bits(dequantize_blocks(part, scale, BLOCK, torch.bfloat16), expected)


def test_too_few_scales_are_an_error_and_not_a_read_beyond_them():
    with pytest.raises(ShapeError, match=r"\[256, 256\] in blocks of \[128, 128\] has \[1, 2\] scales"):
        dequantize_blocks(any_bytes(256, 256).view(E4M3), torch.ones(1, 2), BLOCK, torch.float32)
    with pytest.raises(ShapeError, match="expected one per 32"):
        dequantize_mxfp4(any_bytes(2, 32), any_bytes(2, 1), torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(8, 256), (3, 16), (5, 48), (0, 32), (4, 0), (1100, 2048)])
def test_nvfp4_equals_the_reference_for_all_bytes(dtype, shape):
    weight, scale = any_bytes(shape[0], shape[1] // 2), any_bytes(shape[0], shape[1] // 16).view(E4M3)
    for unit in (torch.tensor(0.37), torch.tensor([-1e-38])):
        expected = nvfp4_definition.dequantize_nvfp4(weight, scale, unit, dtype)
        assert_same_bits(dequantize_nvfp4(weight, scale, unit, dtype), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(8, 256), (3, 32), (5, 96), (0, 32)])
def test_mxfp4_equals_the_reference_for_all_bytes(dtype, shape):
    weight, scale = any_bytes(shape[0], shape[1] // 2), any_bytes(shape[0], shape[1] // 32)
    expected = mxfp4_definition.dequantize_mxfp4(weight, scale, dtype)
    assert_same_bits(dequantize_mxfp4(weight, scale, dtype), expected)


def test_rows_of_float4_that_lie_apart_are_read_where_they_are():
    weight, scale, unit = any_bytes(6, 99)[:, 3:83], any_bytes(6, 13)[:, 2:12].view(E4M3), torch.tensor(2.0)
    expected = nvfp4_definition.dequantize_nvfp4(weight, scale, unit, torch.bfloat16)
    assert_same_bits(dequantize_nvfp4(weight, scale, unit, torch.bfloat16), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_layers_and_experts_equal_the_reference(dtype):
    x, bias = torch.randn(3, 64).to(dtype), torch.randn(96).to(dtype)
    weight, scale = torch.randn(96, 64).to(E4M3), torch.rand(3, 2)
    pairs = [
        (fp8_block_linear, fp8_definition.fp8_block_linear, (x, weight, scale, [32, 32], bias)),
        (
            nvfp4_linear,
            nvfp4_linear_definition.nvfp4_linear,
            (x, any_bytes(96, 32), torch.rand(96, 4).to(E4M3), torch.tensor(0.1), torch.tensor(0.01), bias),
        ),
        (
            nvfp4_linear,
            nvfp4_linear_definition.nvfp4_linear,
            (x, any_bytes(96, 32), torch.rand(96, 4).to(E4M3), torch.tensor(0.1), None, None),
        ),
        *(
            (
                mxfp4_linear,
                mxfp4_linear_definition.mxfp4_linear,
                (x, any_bytes(96, 32), any_bytes(96, 2) // 16 + 118, quantizes, bias),
            )
            for quantizes in (False, True)
        ),
    ]
    w13, w2 = torch.randn(4, 64, 64).to(E4M3), torch.randn(4, 64, 32).to(E4M3)
    routed = (torch.rand(3, 2).to(dtype), torch.tensor([[0, 3], [3, 1], [1, 0]]))
    experts = (x, w13, torch.rand(4, 2, 2), w2, torch.rand(4, 2, 1), [32, 32], *routed)
    pairs.append((fp8_block_moe, moe_definition.fp8_block_moe, experts))
    for compiled, reference, arguments in pairs:
        assert_same_bits(compiled(*arguments), reference(*arguments))


def test_a_compiled_kernel_is_an_overload_of_the_references_operator():
    assert fp8_block_linear._schema.name == fp8_definition.fp8_block_linear._schema.name == "native::fp8_block_linear"
