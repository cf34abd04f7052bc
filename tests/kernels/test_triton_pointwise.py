"""Rotary, silu_and_mul and topk_softmax in triton against other formulations and against the reference."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from backends.native.errors import ShapeError
from backends.native.kernels.choice import kernel

# One unit in the last place: the interpreter truncates float32 to bfloat16, hardware rounds.
LAST_PLACE = {torch.float32: 1e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", LAST_PLACE)
@pytest.mark.parametrize(("tokens", "heads", "head_dim", "half"), [(1, 1, 2, 1), (3, 5, 16, 8), (2, 70, 20, 3)])
def test_rotary_turns_pairs_as_complex_numbers(triton_kernel, device, tokens, heads, head_dim, half, dtype):
    x, angles = torch.randn(tokens, heads, head_dim).to(device, dtype), torch.randn(tokens, half).to(device)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    found = triton_kernel("rotary")(x, cos, sin)
    wide = x.double()
    turned = (
        torch.complex(wide[..., :half], wide[..., half : 2 * half]) * torch.complex(cos.double(), sin.double())[:, None]
    )
    expected = torch.cat((turned.real, turned.imag, wide[..., 2 * half :]), -1)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=LAST_PLACE[dtype], atol=1e-6)
    assert torch.equal(found[..., 2 * half :], x[..., 2 * half :])


def test_rotary_reads_the_heads_of_a_projection_where_they_lie(triton_kernel, device):
    whole, angles = torch.randn(4, 6, 40, device=device), torch.randn(4, 10, device=device)[:, ::2]
    for x in (whole[:, 2:, 3:16], whole[..., :26:2], whole.transpose(0, 1)[:4, :3, :12]):
        arguments = (x, angles.cos(), angles.sin())
        torch.testing.assert_close(triton_kernel("rotary")(*arguments), kernel("rotary", "reference")(*arguments))


def test_rotary_of_no_tokens_and_of_no_angles_changes_nothing(triton_kernel, device):
    none, x = torch.empty(0, 2, 8, device=device), torch.randn(3, 2, 8, device=device)
    assert triton_kernel("rotary")(none, none[:, 0, :2], none[:, 0, :2]).shape == none.shape
    assert torch.equal(triton_kernel("rotary")(x, x[:, 0, :0], x[:, 0, :0]), x)


def test_rotary_in_mixed_dtypes_returns_what_the_reference_returns(triton_kernel, device):
    x, angles = torch.randn(2, 3, 8, device=device, dtype=torch.bfloat16), torch.randn(2, 4, device=device)
    expected = kernel("rotary", "reference")(x, angles.cos(), angles.sin())
    torch.testing.assert_close(triton_kernel("rotary")(x, angles.cos(), angles.sin()), expected)


@pytest.mark.parametrize("dtype", LAST_PLACE)
@pytest.mark.parametrize("shape", [(1, 2), (3, 34), (2, 3, 10), (2, 5000), (40, 6), (0, 8)])
def test_silu_and_mul_is_within_one_rounding_of_float64(triton_kernel, device, shape, dtype):
    x = (3 * torch.randn(*shape)).to(device, dtype)
    found = triton_kernel("silu_and_mul")(x)
    gate, up = x.double().chunk(2, -1)
    torch.testing.assert_close(found.double(), functional.silu(gate) * up, rtol=LAST_PLACE[dtype], atol=1e-6)
    assert found.dtype == dtype


def test_silu_and_mul_reads_views_and_refuses_odd_widths(triton_kernel, device):
    whole = torch.randn(4, 3, 40, device=device)
    for x in (whole[..., 1:21], whole[:, 1, :8], whole.transpose(0, 1), whole[..., ::2]):
        torch.testing.assert_close(triton_kernel("silu_and_mul")(x), kernel("silu_and_mul", "reference")(x))
    with pytest.raises(ShapeError, match="the last dimension is 7, expected a gate and an up half"):
        triton_kernel("silu_and_mul")(whole[..., :7])


@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize(
    ("tokens", "experts", "top_k"), [(1, 1, 1), (5, 8, 3), (3, 60, 6), (9, 512, 10), (2, 4, 4), (0, 8, 2), (70, 33, 1)]
)
def test_routing_equals_the_reference(triton_kernel, device, tokens, experts, top_k, renormalize):
    logits = torch.randn(tokens, experts + 1, device=device)[:, 1:]
    weights, ids = triton_kernel("topk_softmax")(logits, top_k, renormalize)
    expected_weights, expected_ids = kernel("topk_softmax", "reference")(logits, top_k, renormalize)
    assert torch.equal(ids, expected_ids)
    torch.testing.assert_close(weights, expected_weights, rtol=1e-6, atol=1e-7)


def test_of_experts_alike_the_lower_id_is_taken_in_every_dtype(triton_kernel, device):
    for dtype in LAST_PLACE:
        logits = torch.tensor([[1.0, 2.0, 2.0, 1.0, 2.0]], device=device, dtype=dtype)
        weights, ids = triton_kernel("topk_softmax")(logits, 4, True)
        assert ids.tolist() == [[1, 2, 4, 0]]
        expected = logits.float().softmax(-1)[0, ids[0]]
        torch.testing.assert_close(weights[0], expected / expected.sum())


@pytest.mark.parametrize("odd", [float("inf"), float("-inf"), float("nan")])
def test_ids_are_of_experts_and_never_come_twice_whatever_the_logits_hold(triton_kernel, device, odd):
    logits = torch.zeros(3, 5, device=device)
    logits[0], logits[1, 2], logits[2, ::2] = odd, odd, odd
    _, ids = triton_kernel("topk_softmax")(logits, 5, False)
    assert ids.sort(-1).values.tolist() == [[0, 1, 2, 3, 4]] * 3


def test_more_experts_than_there_are_cannot_be_taken(triton_kernel, device):
    with pytest.raises(ShapeError, match="top_k is 5, expected at most the 4 experts"):
        triton_kernel("topk_softmax")(torch.zeros(2, 4, device=device), 5, False)
