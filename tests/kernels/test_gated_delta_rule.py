"""The gated delta rule token by token and in chunks, in torch and in triton, against float64 and transformers."""

from __future__ import annotations

import pytest
import torch

from backends.native.kernels.choice import kernel

IN_CHUNKS, BY_TOKEN = "chunk_gated_delta_rule", "gated_delta_rule"
SHAPES = [  # tokens, key heads, value heads, k_dim, v_dim
    (1, 1, 1, 16, 16),
    (3, 1, 1, 1, 1),
    (17, 2, 4, 8, 5),
    (50, 1, 3, 24, 40),
    (70, 1, 2, 16, 16),
]
DECAYS = {"usual": 1.0, "strong": 60.0, "none": 0.0}
CLOSE = 1e-5


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def drawn(tokens, k_heads, v_heads, k_dim, v_dim, strength=1.0):
    """Query, key, value, decay and beta; of the decays every third is strong, the others near nothing."""
    decay = -strength * torch.rand(tokens, v_heads) * torch.where(torch.arange(tokens) % 3 == 0, 1.0, 1e-3)[:, None]
    query, key = torch.randn(tokens, k_heads, k_dim), torch.randn(tokens, k_heads, k_dim)
    return query, key, torch.randn(tokens, v_heads, v_dim), decay, torch.rand(tokens, v_heads)


def in_float64(query, key, value, decay, beta, state):
    """Token by token as the state equation is written, head by head."""
    query, key, value, decay, beta = (part.double() for part in (query, key, value, decay, beta))
    groups, outputs = value.shape[1] // key.shape[1], torch.empty_like(value)
    states = torch.zeros(value.shape[1], key.shape[2], value.shape[2]).double() if state is None else state.double()
    states = states.clone()
    for head in range(value.shape[1]):
        for token in range(value.shape[0]):
            q, k = query[token, head // groups], key[token, head // groups]
            q, k = q / (q.square().sum() + 1e-6).sqrt(), k / (k.square().sum() + 1e-6).sqrt()
            forget = torch.eye(len(k)).double() - beta[token, head] * torch.outer(k, k)
            kept = forget @ states[head] * decay[token, head].exp()
            states[head] = kept + beta[token, head] * torch.outer(k, value[token, head])
            outputs[token, head] = q @ states[head] * len(q) ** -0.5
    return outputs, states


def assert_equal_to_float64(found, arguments, state, bound=CLOSE):
    for part, expected in zip(found, in_float64(*arguments, state), strict=True):
        assert part.shape == expected.shape
        torch.testing.assert_close(part.cpu().double(), expected, rtol=bound, atol=bound)


@pytest.mark.parametrize("has_state", [False, True])
@pytest.mark.parametrize("strength", DECAYS.values(), ids=DECAYS)
@pytest.mark.parametrize("shape", SHAPES)
def test_chunks_equal_the_rule_in_float64(shape, strength, has_state):
    arguments = drawn(*shape, strength=strength)
    state = torch.randn(shape[2], shape[3], shape[4]) if has_state else None
    assert_equal_to_float64(kernel(IN_CHUNKS, "reference")(*arguments, state), arguments, state)


def test_chunks_equal_the_chunks_of_transformers():
    modeling = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
    arguments, before = drawn(150, 2, 4, 16, 8), torch.randn(4, 16, 8)
    expected, state = modeling.torch_chunk_gated_delta_rule(
        *(part[None] for part in arguments),
        initial_state=before[None],
        output_final_state=True,
        use_qk_l2norm_in_kernel=True,
    )
    found, last = kernel(IN_CHUNKS, "reference")(*arguments, before)
    torch.testing.assert_close(found, expected[0], rtol=CLOSE, atol=CLOSE)
    torch.testing.assert_close(last, state[0], rtol=CLOSE, atol=CLOSE)


def test_a_decay_to_nothing_forgets_everything_before_it():
    arguments = drawn(40, 1, 2, 8, 8)
    arguments[3][20] = float("-inf")
    found, last = kernel(IN_CHUNKS, "reference")(*arguments, torch.randn(2, 8, 8))
    after, last_after = kernel(IN_CHUNKS, "reference")(*(part[20:] for part in arguments), None)
    torch.testing.assert_close(found[20:], after, rtol=CLOSE, atol=CLOSE)
    torch.testing.assert_close(last, last_after, rtol=CLOSE, atol=CLOSE)


def test_keys_that_repeat_do_not_blow_up_in_a_chunk():
    query, key, value, decay, beta = drawn(64, 1, 1, 16, 16, strength=0.0)
    arguments = query, key[:1].expand_as(key), value, decay, torch.ones_like(beta)
    assert_equal_to_float64(kernel(IN_CHUNKS, "reference")(*arguments, None), arguments, None)


@pytest.mark.parametrize("op", [BY_TOKEN, IN_CHUNKS])
def test_neither_form_changes_or_returns_its_arguments(op):
    arguments, state = drawn(3, 1, 2, 8, 8), torch.randn(2, 8, 8)
    before = [part.clone() for part in (*arguments, state)]
    for tokens in (3, 0):
        found = kernel(op, "reference")(*(part[:tokens] for part in arguments), state)
        taken = {part.untyped_storage().data_ptr() for part in (*arguments, state)}
        assert not any(part.untyped_storage().data_ptr() in taken for part in found)
    assert all(torch.equal(part, was) for part, was in zip((*arguments, state), before, strict=True))


@pytest.mark.parametrize("has_state", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("op", [BY_TOKEN, IN_CHUNKS])
def test_triton_equals_the_rule_in_float64(triton_kernel, device, op, shape, has_state):
    if op == BY_TOKEN and shape[0] > 17:
        pytest.skip("the interpreter takes a token at a time")
    arguments = drawn(*shape)
    state = torch.randn(shape[2], shape[3], shape[4]) if has_state else None
    found = triton_kernel(op)(*(part if part is None else part.to(device) for part in (*arguments, state)))
    assert_equal_to_float64(found, arguments, state)


@pytest.mark.parametrize("strength", [DECAYS["strong"], float("inf")])
@pytest.mark.parametrize("op", [BY_TOKEN, IN_CHUNKS])
def test_triton_forgets_what_decays_to_nothing(triton_kernel, device, op, strength):
    query, key, value, decay, beta = drawn(20, 1, 2, 8, 8)
    decay[10] = -strength
    arguments, state = (query, key, value, decay, beta), torch.randn(2, 8, 8)
    found = triton_kernel(op)(*(part.to(device) for part in (*arguments, state)))
    assert_equal_to_float64(found, arguments, state)


@pytest.mark.parametrize("op", [BY_TOKEN, IN_CHUNKS])
def test_triton_goes_on_from_the_state_of_an_earlier_call_and_changes_no_argument(triton_kernel, device, op):
    arguments = tuple(part.to(device) for part in drawn(21, 2, 4, 8, 16))
    before, state, pieces = [part.clone() for part in arguments], None, []
    for start, end in ((0, 1), (1, 18), (18, 18), (18, 21)):
        first = None if state is None else state.clone()
        output, after = triton_kernel(op)(*(part[start:end] for part in arguments), state)
        assert state is None or torch.equal(state, first)
        pieces.append(output)
        state = after
    assert_equal_to_float64((torch.cat(pieces), state), tuple(part.cpu() for part in before), None)
    assert all(torch.equal(part, was) for part, was in zip(arguments, before, strict=True))


@pytest.mark.parametrize("op", [BY_TOKEN, IN_CHUNKS])
def test_triton_reads_the_slices_of_a_projection_where_they_lie(triton_kernel, device, op):
    mixed, (_, _, _, decay, beta) = torch.randn(9, 2 * 16 + 24), drawn(9, 2, 4, 8, 6)
    query, key, value = mixed.split((16, 16, 24), -1)
    arguments = query.unflatten(1, (2, 8)), key.unflatten(1, (2, 8)), value.unflatten(1, (4, 6)), decay, beta.t().t()
    on_device = mixed.to(device).split((16, 16, 24), -1)
    views = [part.unflatten(1, (heads, -1)) for part, heads in zip(on_device, (2, 2, 4), strict=True)]
    found = triton_kernel(op)(*views, decay.to(device), beta.to(device), None)
    assert_equal_to_float64(found, arguments, None)
    spread = [torch.stack((view, view), -1)[..., 0] for view in views]
    found = triton_kernel(op)(*spread, decay.t().contiguous().t().to(device), beta.to(device), None)
    assert_equal_to_float64(found, arguments, None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("op", [BY_TOKEN, IN_CHUNKS])
def test_triton_computes_16_bit_inputs_in_float32(triton_kernel, device, op, dtype):
    query, key, value, decay, beta = drawn(20, 1, 2, 16, 16)
    arguments = query.to(dtype), key.to(dtype), value.to(dtype), decay, beta.to(dtype)
    output, state = triton_kernel(op)(*(part.to(device) for part in arguments), None)
    assert (output.dtype, state.dtype) == (dtype, torch.float32)
    # One unit in the last place of the output (the interpreter truncates to bfloat16); TF32 products on a GPU.
    assert_equal_to_float64((output, state), arguments, None, bound=2**-7 if dtype == torch.bfloat16 else 2**-9)
