"""The triton kernels of INT8 against the references, whose sums are exact."""

from __future__ import annotations

import pytest
import torch

from backends.native.kernels.choice import kernel

pytest.importorskip("triton")
SHAPES = [(1, 40, 96), (5, 70, 200), (18, 65, 128)]  # tokens, outputs, inputs
SCALE, ZERO = torch.tensor([0.05]), torch.tensor([3], dtype=torch.int8)
WAYS = {  # whether the weight has offsets, input scale, its zero point
    "per token": (False, None, None),
    "per token, offsets": (True, None, None),
    "static": (False, SCALE, None),
    "static, zero point": (False, SCALE, ZERO),
    "static, zero point, offsets": (True, SCALE, ZERO),
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.cpu().double() - expected.double()).abs().max() / expected.double().abs().max())


def weights(outputs, inputs):
    return torch.randint(-128, 128, (outputs, inputs), dtype=torch.int8), torch.rand(outputs, 1) * 0.01 + 0.001


def by_hand(x, weight, scale, offset, input_scale, zero_point):
    """`(x - zero) · (weight - offset)` in float64, from inputs quantized here."""
    wide = x.float()
    step = wide.abs().amax(1, keepdim=True) / 127 if input_scale is None else input_scale
    zero = 0 if zero_point is None else zero_point.double()
    codes = ((wide / step).round().double() + zero).clamp(-128, 127)
    shifted = weight.double() - (0 if offset is None else offset.double())
    return (codes - zero) @ shifted.t() * step.double() * scale.double().view(1, -1)


def moved(arguments, device):
    return [value.to(device) if isinstance(value, torch.Tensor) else value for value in arguments]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_product_equals_the_exact_one_and_its_reference(device, triton_kernel, shape, way):
    tokens, outputs, inputs = shape
    has_offset, input_scale, zero_point = WAYS[way]
    x, (weight, scale) = torch.randn(tokens, inputs) * 3, weights(outputs, inputs)
    offset = torch.randn(outputs, 1) if has_offset else None
    arguments = (x, weight, scale, offset, input_scale, zero_point, True, None)
    found = triton_kernel("int8_linear")(*moved(arguments, device))
    assert error(found, by_hand(x, weight, scale, offset, input_scale, zero_point)) < 1e-6
    assert error(found, kernel("int8_linear", "reference")(*arguments)) < (2e-7 if has_offset else 1e-7)


def test_a_product_in_bfloat16_with_a_bias_and_one_scale_is_the_references_to_a_rounding(device, triton_kernel):
    weight, scale = weights(33, 64)
    arguments = (torch.randn(4, 64).bfloat16(), weight, scale[:1], None, None, None, True, torch.randn(33).bfloat16())
    found = triton_kernel("int8_linear")(*moved(arguments, device))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.cpu(), kernel("int8_linear", "reference")(*arguments), rtol=2**-7, atol=0)


def test_inputs_beyond_a_static_scale_saturate_and_zeros_stay_zero(device, triton_kernel):
    weight, scale = weights(16, 32)
    x = torch.full((2, 32), 1e30)
    x[1] = 0
    for input_scale in (SCALE, None):
        arguments = (x, weight, scale, None, input_scale, None, True, None)
        found = triton_kernel("int8_linear")(*moved(arguments, device))
        assert error(found, kernel("int8_linear", "reference")(*arguments)) < 1e-6
        assert not found[1].any()


def test_halves_are_rounded_to_even(device, triton_kernel):
    halves = torch.arange(-130.0, 131) + 0.5
    x = torch.nn.functional.pad(halves, (0, 288 - len(halves)))[None, :]
    arguments = (x, torch.eye(288, dtype=torch.int8), torch.ones(1), None, torch.ones(1), None, True, None)
    found = triton_kernel("int8_linear")(*moved(arguments, device))
    assert torch.equal(found.cpu(), x.round().clamp(-128, 127))


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_with_an_integer_bias_and_one_scale_equal_their_reference(device, triton_kernel, shape):
    tokens, outputs, inputs = shape
    weight, scale = weights(outputs, inputs)
    bias = torch.randint(-10000, 10000, (outputs,), dtype=torch.int32)
    arguments = (torch.randn(tokens, inputs), weight, SCALE, torch.tensor([5.0]), bias, scale.flatten())
    found = triton_kernel("int8_deq_linear")(*moved(arguments, device))
    assert error(found, kernel("int8_deq_linear", "reference")(*arguments)) < 1e-6


def test_what_the_kernel_does_not_do_and_no_token_are_the_references(device, triton_kernel):
    weight, scale = weights(16, 32)
    x = torch.randn(3, 32)
    for arguments in (
        (x, weight, scale, None, None, None, False, None),
        (x[:0], weight, scale, None, None, None, True, None),
    ):
        found = triton_kernel("int8_linear")(*moved(arguments, device))
        torch.testing.assert_close(found.cpu(), kernel("int8_linear", "reference")(*arguments))
