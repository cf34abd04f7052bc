"""The triton kernels of ggml blocks against the library gguf."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type

from backends.native.errors import KernelError
from backends.native.kernels.choice import kernel
from backends.native.kernels.reference.ggml_types import GGML_TYPES

pytest.importorskip("triton")
DONE = [Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K,
        Type.IQ4_NL, Type.IQ4_XS, Type.MXFP4]  # fmt: skip
HALVES = {Type.Q4_0: (0,), Type.Q4_1: (0, 2), Type.Q5_0: (0,), Type.Q5_1: (0, 2), Type.Q8_0: (0,), Type.Q2_K: (80, 82),
          Type.Q3_K: (108,), Type.Q4_K: (0, 2), Type.Q5_K: (0, 2), Type.Q6_K: (208,)}  # fmt: skip
"""Where the float16 of a block are."""


def random_blocks(ggml_type: Type, rows: int, columns: int) -> np.ndarray:
    known = GGML_TYPES[ggml_type]
    rng = np.random.default_rng(ggml_type)
    return rng.integers(0, 256, (rows, known.row_bytes(columns)), dtype=np.uint8)


def moderate_blocks(ggml_type: Type, rows: int, columns: int) -> np.ndarray:
    """Blocks whose scales are of one size, so that a product has a meaning."""
    blocks = random_blocks(ggml_type, rows, columns)
    of_block = blocks.reshape(rows, -1, GGML_TYPES[ggml_type].block_bytes)
    for place in HALVES[ggml_type]:
        of_block[..., place + 1] = 0x20 | (of_block[..., place + 1] & 0x87)
    return blocks


def by_library(blocks: np.ndarray, ggml_type: Type) -> torch.Tensor:
    with np.errstate(all="ignore"):
        return torch.from_numpy(np.array(gguf.dequantize(blocks, ggml_type)))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("ggml_type", DONE, ids=lambda t: t.name)
def test_random_bytes_are_the_librarys_numbers_bit_for_bit(device, triton_kernel, ggml_type):
    blocks = random_blocks(ggml_type, 3, 512)
    found = triton_kernel("dequantize_gguf")(torch.from_numpy(blocks).to(device), ggml_type, torch.float32).cpu()
    expected = by_library(blocks, ggml_type)
    assert found.shape == expected.shape
    is_nan = expected.isnan()
    assert torch.equal(found.isnan(), is_nan)
    assert torch.equal(found.view(torch.int32)[~is_nan], expected.view(torch.int32)[~is_nan])


def test_stacks_slices_and_sixteen_bits_are_the_references(device, triton_kernel):
    dequantize = triton_kernel("dequantize_gguf")
    blocks = torch.from_numpy(moderate_blocks(Type.Q4_K, 6, 512)).view(2, 3, -1)
    expected = kernel("dequantize_gguf", "reference")(blocks, Type.Q4_K, torch.bfloat16)
    assert torch.equal(dequantize(blocks.to(device), Type.Q4_K, torch.bfloat16).cpu(), expected)
    half = blocks.to(device)[:, 1:, :144]
    assert torch.equal(dequantize(half, Type.Q4_K, torch.bfloat16).cpu(), expected[:, 1:, :256])


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-7)])
@pytest.mark.parametrize("ggml_type", [Type.Q8_0, Type.Q4_K, Type.Q6_K], ids=lambda t: t.name)
def test_a_product_equals_that_of_the_librarys_numbers(device, triton_kernel, ggml_type, dtype, bound):
    torch.manual_seed(0)
    blocks = moderate_blocks(ggml_type, 21, 256)
    x, bias = torch.randn(3, 256).to(dtype), torch.randn(21).to(dtype)
    found = triton_kernel("gguf_linear")(
        x.to(device), torch.from_numpy(blocks).to(device), ggml_type, bias.to(device)
    ).cpu()
    expected = x.double() @ by_library(blocks, ggml_type).double().t() + bias.double()
    assert found.dtype == dtype
    assert (found.double() - expected).abs().max() / expected.abs().max() < bound


def test_other_types_and_empty_tensors_are_the_references_and_so_are_its_errors(device, triton_kernel):
    dequantize, multiply = triton_kernel("dequantize_gguf"), triton_kernel("gguf_linear")
    blocks = torch.from_numpy(random_blocks(Type.TQ2_0, 2, 256)).to(device)
    expected = kernel("dequantize_gguf", "reference")(blocks, Type.TQ2_0, torch.float32)
    torch.testing.assert_close(dequantize(blocks, Type.TQ2_0, torch.float32), expected, rtol=0, atol=0, equal_nan=True)
    empty = torch.empty(0, 144, dtype=torch.uint8, device=device)
    assert dequantize(empty, Type.Q4_K, torch.float32).shape == (0, 256)
    assert multiply(torch.empty(0, 256, device=device), empty, Type.Q4_K, None).shape == (0, 0)
    with pytest.raises(KernelError, match="Q8_K cannot be dequantized"):
        dequantize(blocks, Type.Q8_K, torch.float32)
