"""The triton norms against float64 and against the reference."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from backends.native.kernels.choice import kernel

EPS = 1e-6
# One unit in the last place: the interpreter truncates float32 to bfloat16, hardware rounds.
LAST_PLACE = {torch.float32: 1e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}
SHAPES = [(1, 1), (3, 16), (5, 2, 24), (2, 3, 130), (1, 2500), (37, 8)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def drawn(device):
    """Random values of a shape and dtype on the device."""
    return lambda *shape, dtype=torch.float32: torch.randn(*shape).to(device, dtype)


def exact_norm(x, gain):
    return functional.rms_norm(x.double(), x.shape[-1:], gain.double(), EPS)


@pytest.mark.parametrize("is_zero_centered", [False, True])
@pytest.mark.parametrize("dtype", LAST_PLACE)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_norm_is_within_one_rounding_of_float64(triton_kernel, drawn, shape, dtype, is_zero_centered):
    x, weight = drawn(*shape, dtype=dtype), drawn(shape[-1], dtype=dtype)
    found = triton_kernel("rms_norm")(x, weight, EPS, is_zero_centered)
    assert (found.dtype, found.shape, found.is_contiguous()) == (x.dtype, x.shape, True)
    torch.testing.assert_close(
        found.double(), exact_norm(x, weight.double() + is_zero_centered), rtol=LAST_PLACE[dtype], atol=1e-6
    )


@pytest.mark.parametrize("dtype", LAST_PLACE)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_gated_norm_is_within_one_rounding_of_float64(triton_kernel, drawn, shape, dtype):
    x, gate, weight = drawn(*shape, dtype=dtype), drawn(*shape, dtype=dtype), drawn(shape[-1], dtype=dtype)
    found = triton_kernel("rms_norm_gated")(x, gate, weight, EPS)
    expected = exact_norm(x, weight) * functional.silu(gate.double())
    assert (found.dtype, found.shape, found.is_contiguous()) == (x.dtype, x.shape, True)
    torch.testing.assert_close(found.double(), expected, rtol=LAST_PLACE[dtype], atol=1e-6)


def views(whole):
    """[4, 3, 16] out of a larger [4, 6, 16 + n], as heads of a projection, as a transposed and as a spread view."""
    yield whole[:, 1:4, 2:18]
    yield whole[:, ::2, :16]
    yield whole[:, :3, :16].transpose(0, 1)
    yield whole[:, :3, :32:2]
    yield whole[:1, :3, :16].expand(4, 3, 16)


def test_norms_read_views_in_their_own_order_and_change_none(triton_kernel, drawn):
    whole, weight = drawn(4, 6, 40), drawn(16)
    before = whole.clone()
    for x in views(whole):
        norm, gated = triton_kernel("rms_norm"), triton_kernel("rms_norm_gated")
        torch.testing.assert_close(norm(x, weight, EPS, True), kernel("rms_norm", "reference")(x, weight, EPS, True))
        expected = kernel("rms_norm_gated", "reference")(x.contiguous(), x, weight, EPS)
        torch.testing.assert_close(gated(x.contiguous(), x, weight, EPS), expected)
        torch.testing.assert_close(gated(x, x.contiguous(), weight, EPS), expected)
    assert torch.equal(whole, before)


@pytest.mark.parametrize("shape", [(0, 16), (3, 0, 16)])
def test_no_rows_give_no_rows(triton_kernel, drawn, shape):
    x, weight = drawn(*shape), drawn(16)
    assert triton_kernel("rms_norm")(x, weight, EPS, False).shape == shape
    assert triton_kernel("rms_norm_gated")(x, x, weight, EPS).shape == shape


def test_a_row_of_zeros_stays_zero_and_a_large_gate_does_not_overflow(triton_kernel, device):
    zeros, weight = torch.zeros(2, 8, device=device), torch.ones(8, device=device)
    assert torch.equal(triton_kernel("rms_norm")(zeros, weight, EPS, False), zeros)
    gate = torch.tensor([[1e4], [-1e4]], device=device).expand(2, 8)
    found = triton_kernel("rms_norm_gated")(torch.ones(2, 8, device=device), gate, weight, EPS)
    torch.testing.assert_close(found, torch.tensor([[1e4], [0.0]], device=device).expand(2, 8))
