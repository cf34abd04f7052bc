"""The triton kernels of FP8 in blocks, per channel and per tensor against references in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from backends.native.kernels.choice import kernel
from backends.native.quantization.formats.float8_blocks import quantize_blocks

pytest.importorskip("triton")
SHAPES = [  # tokens, outputs, inputs, block
    (1, 40, 96, (16, 32)),
    (5, 70, 200, (128, 128)),
    (3, 20, 50, (5, 7)),
    (18, 65, 64, (32, 16)),
]
# Largest difference over the largest output. Some GPUs keep e4m3 sums of one step in 14 bits.
BOUNDS = {("cpu", torch.float32): 1e-6, ("cpu", torch.bfloat16): 2**-7, ("cuda", torch.float32): 1e-5,
          ("cuda", torch.bfloat16): 2**-7}  # fmt: skip


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())


def blocks(device, outputs, inputs, block):
    weight, scale = quantize_blocks(torch.randn(outputs, inputs), block)
    return weight.to(device), scale.to(device)


def widened(scale, block, rows, columns):
    """A scale for every element, by plain indexing."""
    row, column = torch.arange(rows)[:, None] // block[0], torch.arange(columns)[None, :] // block[1]
    return scale.cpu().double()[row, column]


def quantized_by_hand(x, group):
    """Group by group in float32, and what is left of `x` in float64."""
    codes, scales = [], []
    for start in range(0, x.shape[1], group):
        part = x[:, start : start + group].float()
        scale = part.abs().amax(1).clamp(min=1e-10) / 448
        codes.append((part / scale[:, None]).to(torch.float8_e4m3fn))
        scales.append(scale)
    return torch.cat([part.view(torch.uint8) for part in codes], 1), torch.stack(scales, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("tokens", "columns", "group"), [(1, 128, 128), (5, 200, 128), (3, 50, 7), (0, 64, 32)])
def test_inputs_are_quantized_to_the_bits_of_both_references(device, triton_kernel, tokens, columns, group, dtype):
    x = (torch.randn(tokens, columns) * torch.logspace(-6, 6, columns)).to(dtype)
    x[:, :group] = 0
    for implementation, place in ((triton_kernel("per_token_group_quant_fp8"), device),
                                  (kernel("per_token_group_quant_fp8", "reference"), "cpu")):  # fmt: skip
        quantized, scale = implementation(x.to(place), group)
        codes, scales = quantized_by_hand(x, group)
        assert torch.equal(quantized.cpu().view(torch.uint8), codes)
        assert torch.equal(scale.cpu(), scales)


def test_every_float32_near_a_rounding_edge_becomes_the_e4m3_that_torch_makes(device, triton_kernel):
    edges = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    middles = (edges[1:] + edges[:-1]) / 2
    near = torch.cat([middles, *(torch.nextafter(middles, middles.new_tensor(to)) for to in (0.0, 500.0)), edges])
    # The largest of a group is 448, so that its scale is one.
    x = torch.cat([near, -near, torch.full((1,), 448.0)])[None, :].to(device)
    quantized, scale = triton_kernel("per_token_group_quant_fp8")(x, x.shape[1])
    assert scale.item() == 1
    assert torch.equal(quantized.cpu().view(torch.uint8), x.cpu().to(torch.float8_e4m3fn).view(torch.uint8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("tokens", "outputs", "inputs", "block"), SHAPES)
def test_a_weight_only_product_equals_that_of_the_dequantized_weight(
    device, triton_kernel, tokens, outputs, inputs, block, dtype
):
    x, bias = torch.randn(tokens, inputs, device=device).to(dtype), torch.randn(outputs, device=device).to(dtype)
    weight, scale = blocks(device, outputs, inputs, block)
    exact = weight.cpu().double() * widened(scale, block, outputs, inputs)
    expected = functional.linear(x.cpu().double(), exact, bias.cpu().double())
    found = triton_kernel("fp8_block_linear")(x, weight, scale, list(block), bias)
    assert found.dtype == dtype
    assert error(found.cpu(), expected) < BOUNDS[device, dtype]


@pytest.mark.parametrize(("tokens", "outputs", "inputs", "block"), SHAPES)
@pytest.mark.parametrize("is_native", [False, True], ids=["widened", "float8 products"])
def test_a_product_of_quantized_inputs_equals_its_reference(
    device, triton_kernel, monkeypatch, tokens, outputs, inputs, block, is_native
):
    multiply = triton_kernel("fp8_block_dynamic_linear")
    if device == "cpu":
        monkeypatch.setattr("backends.native.kernels.triton.block_product.multiplies_float8", lambda x: is_native)
    x = torch.randn(tokens, inputs, device=device)
    weight, scale = blocks(device, outputs, inputs, block)
    codes, scales = quantized_by_hand(x.cpu(), block[1])
    inputs_left = codes.view(torch.float8_e4m3fn).double() * widened(scales, (1, block[1]), tokens, inputs)
    expected = inputs_left @ (weight.cpu().double() * widened(scale, block, outputs, inputs)).t()
    arguments = (x, weight, scale, list(block), None)
    assert error(multiply(*arguments).cpu(), expected) < (1e-6 if device == "cpu" else 1e-3)
    assert error(kernel("fp8_block_dynamic_linear", "reference")(*arguments).cpu(), expected) < 1e-6


def test_operands_may_be_slices_and_there_may_be_no_token(device, triton_kernel):
    multiply = triton_kernel("fp8_block_linear")
    weight, scale = blocks(device, 48, 96, (16, 32))
    wide, x = torch.randn(4, 200, device=device), torch.randn(4, 96, device=device)
    wide[:, 100:196] = x
    expected = multiply(x, weight, scale, [16, 32], None)
    assert torch.equal(multiply(wide[:, 100:196], weight, scale, [16, 32], None), expected)
    assert torch.equal(multiply(x.t().contiguous().t(), weight, scale, [16, 32], None), expected)
    part = multiply(x[:, 32:64], weight[16:32, 32:64], scale[1:2, 1:2], [16, 32], None)
    assert torch.equal(part, multiply(x[:, 32:64].clone(), weight[16:32, 32:64].contiguous(), scale[1:2, 1:2].clone(),
                                      [16, 32], None))  # fmt: skip
    for op in ("fp8_block_linear", "fp8_block_dynamic_linear"):
        assert triton_kernel(op)(x[:0], weight, scale, [16, 32], None).shape == (0, 48)


@pytest.mark.parametrize("shape", [(1, 40, 96), (5, 70, 200), (18, 33, 2100)])
@pytest.mark.parametrize(
    ("is_quantizing", "is_static", "is_per_channel"),
    [(True, False, True), (True, True, False), (True, False, False), (False, False, True)],
)
def test_scales_per_channel_token_or_tensor_equal_their_reference(
    device, triton_kernel, shape, is_quantizing, is_static, is_per_channel
):
    tokens, outputs, inputs = shape
    x, bias = torch.randn(tokens, inputs), torch.randn(outputs)
    x[0] = 0
    weight = (torch.randn(outputs, inputs) * 100).to(torch.float8_e4m3fn)
    scale = torch.rand(outputs, 1) + 0.1 if is_per_channel else torch.tensor([0.01])
    arguments = (x, weight, scale, torch.tensor([0.003]) if is_static else None, is_quantizing, bias)
    on_device = [value.to(device) if isinstance(value, torch.Tensor) else value for value in arguments]
    found = triton_kernel("fp8_linear")(*on_device).cpu()
    expected = kernel("fp8_linear", "reference")(*arguments)
    assert error(found, expected) < (1e-6 if device == "cpu" else 1e-3 if is_quantizing else 1e-5)
    if tokens > 1:
        # By hand, in float64: the static scale saturates at 448 times itself.
        step = arguments[3] if is_static else x.abs().amax(1, keepdim=True).clamp(min=1e-12) / 448
        left = (
            (x / step).clamp(-448, 448).to(torch.float8_e4m3fn).double() * step.double()
            if is_quantizing
            else x.double()
        )
        assert error(found, left @ (weight.double() * scale.double()).t() + bias.double()) < 1e-3


def test_per_tensor_scales_without_a_token_and_in_bfloat16(device, triton_kernel):
    weight, scale = torch.randn(16, 32, device=device).to(torch.float8_e4m3fn), torch.ones(1, device=device)
    x = torch.randn(3, 32, device=device).bfloat16()
    assert triton_kernel("fp8_linear")(x[:0], weight, scale, None, True, None).shape == (0, 16)
    found = triton_kernel("fp8_linear")(x, weight, scale, None, True, None)
    assert error(found.cpu(), kernel("fp8_linear", "reference")(x, weight, scale, None, True, None).cpu()) < 2**-7
