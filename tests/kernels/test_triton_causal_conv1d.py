"""The triton convolution against the reference, in one piece and going on from its state."""

from __future__ import annotations

import pytest
import torch

from backends.native.kernels.choice import kernel

SHAPES = [(1, 1, 4), (1, 200, 4), (2, 3, 4), (20, 130, 4), (33, 5, 2), (7, 3, 1), (0, 4, 4)]  # tokens, channels, kernel


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("has_state", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_convolution_and_its_state_equal_the_reference(triton_kernel, device, shape, has_state):
    tokens, channels, size = shape
    x, weight = torch.randn(tokens, channels, device=device), torch.randn(channels, size, device=device)
    state = torch.randn(channels, size - 1, device=device) if has_state else None
    output, last = triton_kernel("causal_conv1d")(x, weight, state)
    if tokens:  # torch convolves nothing but refuses no tokens
        expected, expected_last = kernel("causal_conv1d", "reference")(x, weight, state)
        torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)
    else:
        expected_last = torch.zeros(channels, size - 1, device=device) if state is None else state
    assert torch.equal(last, expected_last)
    assert output.is_contiguous()


def test_a_prompt_in_pieces_equals_the_whole(triton_kernel, device):
    x, weight = torch.randn(23, 6, device=device), torch.randn(6, 4, device=device)
    conv = triton_kernel("causal_conv1d")
    whole, last = conv(x, weight, None)
    state, pieces = None, []
    for piece in x.split((1, 2, 17, 1, 2)):
        output, state = conv(piece, weight, state)
        pieces.append(output)
    assert torch.equal(torch.cat(pieces), whole)
    assert torch.equal(state, last)


def test_the_state_of_bfloat16_holds_the_inputs_bit_for_bit(triton_kernel, device):
    x, weight = (torch.randn(5, 70, device=device).bfloat16() for _ in range(2))
    state = torch.randn(70, 3, device=device).bfloat16()
    output, last = triton_kernel("causal_conv1d")(x[:2], weight[:4].t().contiguous(), state)
    assert torch.equal(last, torch.cat((state, x[:2].t()), 1)[:, 2:])
    exact, _ = kernel("causal_conv1d", "reference")(x[:2].float(), weight[:4].t().float(), state.float())
    torch.testing.assert_close(output.float(), exact, rtol=2**-7, atol=1e-5)


def test_views_are_read_in_their_order(triton_kernel, device):
    x, weight = torch.randn(6, 20, device=device), torch.randn(4, 5, device=device).t()
    state = torch.randn(3, 5, device=device).t()
    for view in (x[:, 2:7], x[:, ::4], x.t()[:9, :5]):
        arguments = (view, weight, state)
        for found, expected in zip(
            triton_kernel("causal_conv1d")(*arguments), kernel("causal_conv1d", "reference")(*arguments), strict=True
        ):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
