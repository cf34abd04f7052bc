"""The triton kernels of NVFP4 and MXFP4: bits of the dequantized weight, and products."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from backends.native.kernels.choice import kernel

pytest.importorskip("triton")
SHAPES = [(1, 40, 32), (5, 70, 96), (18, 33, 160)]  # tokens, outputs, inputs
UNIT, INPUT_UNIT = torch.tensor([0.013]), torch.tensor([0.0007])
E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=torch.float64)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.cpu().double() - expected.double()).abs().max() / expected.double().abs().max())


def moved(arguments, device):
    return [value.to(device) if isinstance(value, torch.Tensor) else value for value in arguments]


def nvfp4(outputs, inputs):
    return torch.randint(0, 256, (outputs, inputs // 2), dtype=torch.uint8), torch.rand(outputs, inputs // 16).to(
        torch.float8_e4m3fn
    )


def mxfp4(outputs, inputs):
    packed, _ = nvfp4(outputs, inputs)
    return packed, torch.randint(115, 125, (outputs, inputs // 32), dtype=torch.uint8)


def unpacked(packed, scales, group):
    """float64 [N, K] from a table of values."""
    codes = torch.stack((packed & 15, packed >> 4), -1).flatten(1).long()
    return E2M1[codes] * scales.repeat_interleave(group, 1)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dequantized_weights_have_the_bits_of_the_reference_for_every_code_and_scale(device, triton_kernel, dtype):
    # One row, in which every scale meets every code in both halves of a byte.
    codes = (torch.arange(16, dtype=torch.uint8) * 15 + 15).repeat(1, 256)
    scales = torch.arange(256, dtype=torch.uint8)[None, :]
    for op, arguments in (
        ("dequantize_nvfp4", (codes, scales.repeat_interleave(2, 1).view(torch.float8_e4m3fn), UNIT, dtype)),
        ("dequantize_mxfp4", (codes, scales, dtype)),
    ):
        found = triton_kernel(op)(*moved(arguments, device)).cpu()
        assert found.dtype == dtype
        torch.testing.assert_close(found, kernel(op, "reference")(*arguments), rtol=0, atol=0, equal_nan=True)


def test_dequantized_weights_are_codes_from_a_table_times_scales(device, triton_kernel):
    weight, scales = nvfp4(5, 96)
    found = triton_kernel("dequantize_nvfp4")(*moved((weight, scales, UNIT, torch.float32), device))
    assert error(found, unpacked(weight, scales.double(), 16) * UNIT.double()) < 1e-7
    weight, exponents = mxfp4(5, 96)
    found = triton_kernel("dequantize_mxfp4")(*moved((weight, exponents, torch.float32), device))
    assert torch.equal(found.cpu().double(), unpacked(weight, torch.pow(2.0, exponents.double() - 127), 32))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-7)])
@pytest.mark.parametrize("shape", SHAPES)
def test_weight_only_products_equal_those_of_the_dequantized_weight(device, triton_kernel, shape, dtype, bound):
    tokens, outputs, inputs = shape
    x, bias = torch.randn(tokens, inputs).to(dtype), torch.randn(outputs).to(dtype)
    weight, scales = nvfp4(outputs, inputs)
    found = triton_kernel("nvfp4_linear")(*moved((x, weight, scales, UNIT, None, bias), device))
    exact = unpacked(weight, scales.double(), 16) * UNIT.double()
    assert found.dtype == dtype
    assert error(found, functional.linear(x.double(), exact, bias.double())) < bound
    weight, exponents = mxfp4(outputs, inputs)
    found = triton_kernel("mxfp4_linear")(*moved((x, weight, exponents, False, None), device))
    assert error(found, x.double() @ unpacked(weight, torch.pow(2.0, exponents.double() - 127), 32).t()) < bound


@pytest.mark.parametrize("shape", SHAPES)
def test_products_of_quantized_inputs_equal_their_references(device, triton_kernel, shape):
    tokens, outputs, inputs = shape
    x = torch.randn(tokens, inputs)
    x[:, :16] = 0
    weight, scales = nvfp4(outputs, inputs)
    exponents = mxfp4(outputs, inputs)[1]
    for op, arguments in (
        ("nvfp4_linear", (x, weight, scales, UNIT, INPUT_UNIT, None)),
        ("mxfp4_linear", (x, weight, exponents, True, None)),
    ):
        found = triton_kernel(op)(*moved(arguments, device))
        assert error(found, kernel(op, "reference")(*arguments)) < 1e-6


def test_inputs_at_the_edges_of_float4_are_rounded_to_even(device, triton_kernel):
    values = E2M1[:8].float()
    middles = (values[1:] + values[:-1]) / 2
    near = torch.cat([middles, *(torch.nextafter(middles, middles.new_tensor(to)) for to in (0.0, 9.0))])
    x = functional.pad(torch.stack((near, -near)), (0, 32 - len(near)), value=6.0)
    # A weight of ones, as 2 times 2**-1, picks single inputs: the sum over a diagonal.
    weight = (torch.eye(32) * 4).to(torch.uint8)
    packed = weight[:, 0::2] | (weight[:, 1::2] << 4)
    exponents = torch.full((32, 1), 126, dtype=torch.uint8)
    found = triton_kernel("mxfp4_linear")(*moved((x, packed, exponents, True, None), device)).cpu()
    distance = (values[None, :] - x.abs().flatten()[:, None]).abs()
    nearest = distance.amin(1, keepdim=True) == distance
    even = nearest & (torch.arange(8) % 2 == 0)
    chosen = torch.where(even.any(1), even.float().argmax(1), nearest.float().argmax(1))
    assert torch.equal(found, (values[chosen].view(x.shape) * x.sign()))


def test_no_token_and_no_output_are_no_error(device, triton_kernel):
    weight, scales = nvfp4(16, 32)
    x = torch.randn(2, 32)
    for rows, columns in ((0, 16), (2, 0)):
        arguments = (x[:rows], weight[:columns], scales[:columns], UNIT, None, None)
        assert triton_kernel("nvfp4_linear")(*moved(arguments, device)).shape == (rows, columns)
