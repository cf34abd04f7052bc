"""The triton kernels of fused experts, plain and in FP8 blocks, and how tokens are sorted for them."""

from __future__ import annotations

import pytest
import torch

from backends.native.kernels.choice import kernel
from backends.native.quantization.formats.float8_blocks import quantize_blocks

pytest.importorskip("triton")
SHAPES = [  # tokens, hidden, intermediate, experts, top_k, block
    (5, 70, 40, 6, 2, (8, 16)),
    (1, 48, 32, 4, 3, (16, 32)),
    (40, 32, 48, 3, 1, (16, 16)),
]
FP8 = ("fp8_block_moe", "fp8_block_dynamic_moe")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def experts_by_hand(x, w13, w2, weights, ids):
    """Token by token and choice by choice in float64."""
    output = torch.zeros(x.shape, dtype=torch.float64)
    for token in range(x.shape[0]):
        for weight, expert in zip(weights[token].double(), ids[token].tolist(), strict=True):
            gate, up = (w13[expert].double() @ x[token].double()).chunk(2)
            output[token] += weight * (w2[expert].double() @ (gate * gate.sigmoid() * up))
    return output


def arguments(tokens, hidden, intermediate, experts, top_k):
    x = torch.randn(tokens, hidden)
    w13 = torch.randn(experts, 2 * intermediate, hidden) * hidden**-0.5
    w2 = torch.randn(experts, hidden, intermediate) * intermediate**-0.5
    weights, ids = torch.randn(tokens, experts).softmax(-1).topk(top_k)
    return x, w13, w2, weights, ids


def in_blocks(weights, block):
    quantized, scales = zip(*(quantize_blocks(weight, block) for weight in weights), strict=True)
    return torch.stack(quantized), torch.stack(scales)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-6)])
@pytest.mark.parametrize("shape", SHAPES)
def test_experts_equal_those_computed_one_choice_at_a_time(device, triton_kernel, shape, dtype, bound):
    x, w13, w2, weights, ids = (t.to(dtype) if t.is_floating_point() else t for t in arguments(*shape[:5]))
    found = triton_kernel("fused_moe")(*(tensor.to(device) for tensor in (x, w13, w2, weights, ids)))
    assert found.dtype == dtype
    assert error(found.cpu(), experts_by_hand(x, w13, w2, weights, ids)) < bound


@pytest.mark.parametrize("op", FP8)
@pytest.mark.parametrize("shape", SHAPES)
def test_experts_in_blocks_equal_their_reference(device, triton_kernel, shape, op):
    x, w13, w2, weights, ids = arguments(*shape[:5])
    stacks = (*in_blocks(w13, shape[5]), *in_blocks(w2, shape[5]))
    operands = [tensor.to(device) for tensor in (x, *stacks)]
    found = triton_kernel(op)(*operands, list(shape[5]), weights.to(device), ids.to(device))
    expected = kernel(op, "reference")(x, *stacks, list(shape[5]), weights, ids)
    bound = 1e-6 if device == "cpu" else 1e-5 if op == "fp8_block_moe" else 5e-3
    assert error(found.cpu(), expected) < bound
    # The reference itself is as near to the experts as e4m3 is.
    assert error(expected, experts_by_hand(x, w13, w2, weights, ids)) < 0.08


def test_all_tokens_may_choose_one_expert_and_no_token_is_no_error(device, triton_kernel):
    x, w13, w2, weights, ids = arguments(20, 32, 16, 5, 2)
    ids = torch.full_like(ids, 3)
    on_device = [tensor.to(device) for tensor in (x, w13, w2, weights, ids)]
    found = triton_kernel("fused_moe")(*on_device)
    assert error(found.cpu(), experts_by_hand(x, w13, w2, weights, ids)) < 1e-5
    empty = triton_kernel("fused_moe")(on_device[0][:0], *on_device[1:3], on_device[3][:0], on_device[4][:0])
    assert empty.shape == (0, 32)


@pytest.mark.parametrize(("tokens", "top_k", "experts", "tile_m"), [(1, 1, 1, 16), (7, 3, 5, 4), (50, 2, 3, 16)])
def test_every_choice_stands_once_in_a_tile_of_its_expert(tokens, top_k, experts, tile_m):
    sort_by_expert = pytest.importorskip("backends.native.kernels.triton.token_sorting").sort_by_expert
    ids = torch.randint(0, experts, (tokens, top_k))
    choices = sort_by_expert(ids, experts, tile_m)
    seen = []
    for slots, expert in zip(choices.slots.split(tile_m), choices.experts.tolist(), strict=True):
        filled = slots[slots < tokens * top_k]
        assert expert < experts or not len(filled)
        assert all(ids.flatten()[slot] == expert for slot in filled)
        seen += filled.tolist()
    assert sorted(seen) == list(range(tokens * top_k))
