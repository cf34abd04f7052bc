"""Reference kernels against other formulations of the same operation."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from backends.native.kernels.reference.causal_attention import causal_attention
from backends.native.kernels.reference.causal_conv1d import causal_conv1d
from backends.native.kernels.reference.fp8_block_linear import dequantize_blocks, fp8_block_linear
from backends.native.kernels.reference.fp8_block_moe import fp8_block_moe
from backends.native.kernels.reference.fused_moe import fused_moe
from backends.native.kernels.reference.gated_delta_rule import gated_delta_rule
from backends.native.kernels.reference.rms_norm import rms_norm
from backends.native.kernels.reference.rms_norm_gated import rms_norm_gated
from backends.native.kernels.reference.rotary import rotary
from backends.native.kernels.reference.silu_and_mul import silu_and_mul
from backends.native.kernels.reference.topk_softmax import topk_softmax


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_every_reference_kernel_is_an_operator_in_the_namespace_native():
    x = torch.randn(2, 8)
    assert torch.equal(torch.ops.native.silu_and_mul(x), silu_and_mul(x))


@pytest.mark.parametrize("is_zero_centered", [False, True])
def test_rms_norm_equals_torchs(is_zero_centered):
    x, weight = torch.randn(3, 16), torch.randn(16)
    expected = functional.rms_norm(x, (16,), weight + is_zero_centered, 1e-6)
    torch.testing.assert_close(rms_norm(x, weight, 1e-6, is_zero_centered), expected)


def test_a_norm_in_bfloat16_is_computed_in_float32():
    x, weight = torch.randn(3, 256).bfloat16(), torch.randn(256).bfloat16()
    expected = functional.rms_norm(x.double(), (256,), weight.double() + 1, 1e-6).bfloat16()
    assert torch.equal(rms_norm(x, weight, 1e-6, True), expected)


def test_the_gated_norm_is_a_norm_times_silu_of_the_gate():
    x, gate, weight = torch.randn(3, 4, 8), torch.randn(3, 4, 8), torch.randn(8)
    expected = functional.rms_norm(x, (8,), weight, 1e-6) * gate * gate.sigmoid()
    torch.testing.assert_close(rms_norm_gated(x, gate, weight, 1e-6), expected)


def test_rotary_turns_pairs_as_complex_numbers_and_leaves_the_rest():
    x, angles = torch.randn(5, 3, 10), torch.randn(5, 4)
    turned = torch.complex(x[..., :4], x[..., 4:8]) * torch.polar(torch.ones(5, 4), angles)[:, None]
    expected = torch.cat((turned.real, turned.imag, x[..., 8:]), -1)
    torch.testing.assert_close(rotary(x, angles.cos(), angles.sin()), expected)


@pytest.mark.parametrize(("queries", "keys"), [(6, 6), (1, 6), (3, 6)])
def test_attention_equals_torchs_for_the_last_tokens(queries, keys):
    query, key, value = torch.randn(keys, 4, 8), torch.randn(keys, 2, 8), torch.randn(keys, 2, 8)
    whole = functional.scaled_dot_product_attention(
        *(part.transpose(0, 1)[None] for part in (query, key, value)), is_causal=True, enable_gqa=True
    )[0].transpose(0, 1)
    torch.testing.assert_close(causal_attention(query[-queries:], key, value), whole[-queries:])


def test_a_convolution_sees_the_past_only_and_goes_on_from_its_state():
    x, weight = torch.randn(7, 3), torch.randn(3, 4)
    padded = torch.cat((torch.zeros(3, 3), x))
    expected = torch.stack([(padded[t : t + 4] * weight.t()).sum(0) for t in range(7)])
    whole, _ = causal_conv1d(x, weight, None)
    torch.testing.assert_close(whole, expected * expected.sigmoid())
    state, pieces = None, []
    for piece in x.split((1, 2, 4)):
        output, state = causal_conv1d(piece, weight, state)
        pieces.append(output)
    torch.testing.assert_close(torch.cat(pieces), whole)
    assert torch.equal(state, x[-3:].t())


def delta_rule_arguments(tokens=6, k_heads=2, v_heads=4):
    query, key = torch.randn(tokens, k_heads, 8), torch.randn(tokens, k_heads, 8)
    return query, key, torch.randn(tokens, v_heads, 5), -torch.rand(tokens, v_heads), torch.rand(tokens, v_heads)


def test_the_delta_rule_in_pieces_equals_the_whole():
    arguments = delta_rule_arguments()
    whole, last = gated_delta_rule(*arguments, None)
    first, state = gated_delta_rule(*(part[:2] for part in arguments), None)
    rest, state = gated_delta_rule(*(part[2:] for part in arguments), state)
    torch.testing.assert_close(torch.cat((first, rest)), whole)
    torch.testing.assert_close(state, last)


def test_the_delta_rule_without_decay_and_at_full_rate_recalls_the_last_value_of_a_key():
    query, key, value, *_ = delta_rule_arguments()
    _, state = gated_delta_rule(query, key, value, torch.zeros(6, 4), torch.ones(6, 4), None)
    last_key = functional.normalize(key[-1], dim=-1).repeat_interleave(2, 0)
    torch.testing.assert_close(torch.einsum("hk,hkv->hv", last_key, state), value[-1], rtol=1e-4, atol=1e-4)


def test_the_delta_rule_equals_the_chunked_form_of_transformers():
    modeling = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
    arguments = delta_rule_arguments(tokens=70)
    expected, state = modeling.torch_chunk_gated_delta_rule(
        *(part[None] for part in arguments), output_final_state=True, use_qk_l2norm_in_kernel=True
    )
    found, last = gated_delta_rule(*arguments, None)
    torch.testing.assert_close(found, expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(last, state[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("renormalize", [False, True])
def test_routing_weights_are_softmax_probabilities_of_the_chosen_experts(renormalize):
    logits = torch.randn(5, 8)
    weights, ids = topk_softmax(logits, 3, renormalize)
    probabilities = logits.softmax(-1).gather(1, ids)
    assert torch.equal(ids, logits.argsort(-1, descending=True)[:, :3])
    torch.testing.assert_close(
        weights, probabilities / probabilities.sum(-1, keepdim=True) if renormalize else probabilities
    )


def dense_experts(x, w13, w2, topk_weights, topk_ids):
    """Every expert on every token, weighted."""
    weights = torch.zeros(x.shape[0], w13.shape[0]).scatter_add_(1, topk_ids, topk_weights)
    gate, up = torch.einsum("th,eih->eti", x, w13).chunk(2, -1)
    return torch.einsum("eti,ehi,te->th", functional.silu(gate) * up, w2, weights)


def test_experts_equal_the_dense_sum():
    arguments = (
        torch.randn(6, 8),
        torch.randn(4, 10, 8),
        torch.randn(4, 8, 5),
        torch.rand(6, 2),
        torch.randint(4, (6, 2)),
    )
    torch.testing.assert_close(fused_moe(*arguments), dense_experts(*arguments), rtol=1e-4, atol=1e-4)


def test_block_weights_are_applied_as_their_dequantized_form():
    weight, scale = torch.randn(5, 6).to(torch.float8_e4m3fn), torch.rand(3, 2)
    x, bias = torch.randn(2, 6), torch.randn(5)
    dense = torch.stack(
        [torch.stack([weight[r, c].float() * scale[r // 2, c // 4] for c in range(6)]) for r in range(5)]
    )
    assert torch.equal(dequantize_blocks(weight, scale, (2, 4)), dense)
    torch.testing.assert_close(fp8_block_linear(x, weight, scale, [2, 4], bias), x @ dense.t() + bias)


def test_block_experts_equal_dequantized_experts():
    w13, w2 = torch.randn(3, 8, 4).to(torch.float8_e4m3fn), torch.randn(3, 4, 4).to(torch.float8_e4m3fn)
    w13_scale, w2_scale = torch.rand(3, 4, 2), torch.rand(3, 2, 2)
    x, weights, ids = torch.randn(5, 4), torch.rand(5, 2), torch.randint(3, (5, 2))
    dense = [
        torch.stack([dequantize_blocks(w[e], s[e], (2, 2)) for e in range(3)])
        for w, s in ((w13, w13_scale), (w2, w2_scale))
    ]
    found = fp8_block_moe(x, w13, w13_scale, w2, w2_scale, [2, 2], weights, ids)
    torch.testing.assert_close(found, dense_experts(x, *dense, weights, ids), rtol=1e-4, atol=1e-4)
