"""Qwen3-Next against transformers on the same checkpoint: every layer, prefill and decode, any tensor parallel size."""

from __future__ import annotations

import importlib

import pytest
import torch

from backends.native.checkpoint.synthesize import write_checkpoint
from backends.native.generate import generate
from backends.native.loader import LoadOptions, load
from backends.native.parallel.lockstep import run_ranks

transformers = pytest.importorskip("transformers")
PROMPT = [(7 * position) % 90 + 3 for position in range(12)]
DECODED = [5, 61, 17]
PER_LAYER, BETWEEN_RANKS = 1e-4, 1e-5


def relative_error(candidate, reference):
    return ((candidate - reference).norm() / reference.norm()).item()


def hidden_states(layers, run):
    """What each decoder layer returned during `run`, and the result of `run`."""
    outputs = []

    def keep(_module, _arguments, output):
        outputs.append((output[0] if isinstance(output, tuple) else output).flatten(0, -2).clone())

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    with torch.no_grad():
        result = run()
    for hook in hooks:
        hook.remove()
    return outputs, result


def steps():
    """Token ids and first position of the prefill and of each decode step."""
    yield PROMPT, 0
    for step, token in enumerate(DECODED):
        yield [token], len(PROMPT) + step


def reference_steps(folder):
    model = transformers.Qwen3NextForCausalLM.from_pretrained(folder, dtype=torch.float32).float().eval()
    cache = transformers.DynamicCache(config=model.config)
    for ids, _ in steps():
        tokens = torch.tensor([ids])
        layers, output = hidden_states(
            model.model.layers, lambda tokens=tokens: model(input_ids=tokens, past_key_values=cache, use_cache=True)
        )
        yield layers, output.logits[0]


def logits_of_all_steps(folder, tp_size):
    loaded = load(folder, LoadOptions(tp_size=tp_size, dtype=torch.float32))

    def work(rank):
        model = loaded.models[rank]
        cache = model.make_cache()
        return torch.cat([model(torch.tensor(ids), torch.arange(at, at + len(ids)), cache) for ids, at in steps()])

    return run_ranks(tp_size, work)


def assert_equal_to_transformers(folder):
    model = load(folder, LoadOptions(dtype=torch.float32)).models[0]
    cache = model.make_cache()
    for (ids, at), (expected_layers, expected_logits) in zip(steps(), reference_steps(folder), strict=True):
        tokens, positions = torch.tensor(ids), torch.arange(at, at + len(ids))
        layers, logits = hidden_states(
            model.model.layers, lambda tokens=tokens, positions=positions: model(tokens, positions, cache)
        )
        errors = [relative_error(*pair) for pair in zip(layers, expected_layers, strict=True)]
        assert max(errors) <= PER_LAYER, errors
        assert relative_error(logits, expected_logits) <= PER_LAYER


@pytest.fixture
def fp8_without_accelerate(monkeypatch):
    # transformers asks for accelerate before it reads float8 files, but dequantizing on a CPU does not use it.
    quantizer = pytest.importorskip("transformers.quantizers.quantizer_finegrained_fp8")
    monkeypatch.setattr(quantizer, "is_accelerate_available", lambda: True)


def test_every_layer_equals_transformers_in_prefill_and_decode(tiny):
    assert_equal_to_transformers(tiny)


def test_a_block_quantized_load_equals_the_dequantized_load_of_transformers(tiny_fp8, fp8_without_accelerate):
    assert_equal_to_transformers(tiny_fp8)


@pytest.mark.parametrize(
    "change",
    [
        {"mlp_only_layers": [0]},
        {"decoder_sparse_step": 2},
        {"attention_bias": True},
        {"tie_word_embeddings": True},
        {"norm_topk_prob": False},
        {"num_key_value_heads": 4},
        {"layer_types": ["full_attention", "linear_attention"]},
        {
            "rope_theta": None,
            "partial_rotary_factor": None,
            "rope_parameters": {"rope_theta": 500.0, "rope_type": "default", "partial_rotary_factor": 0.5},
        },
    ],
    ids=lambda change: next(key for key, value in change.items() if value is not None),
)
def test_a_variant_of_the_config_equals_transformers_and_itself_on_two_ranks(small_config, tmp_path, change):
    config = {key: value for key, value in (small_config | change).items() if value is not None}
    write_checkpoint(tmp_path, config, seed=3, max_file_bytes=1 << 30)
    assert_equal_to_transformers(tmp_path)
    alone = logits_of_all_steps(tmp_path, 1)[0]
    assert relative_error(logits_of_all_steps(tmp_path, 2)[1], alone) <= BETWEEN_RANKS


@pytest.mark.parametrize("tp_size", [2, 4])
@pytest.mark.parametrize("checkpoint", ["tiny", "tiny_fp8"])
def test_logits_do_not_depend_on_the_tensor_parallel_size(request, checkpoint, tp_size):
    folder = request.getfixturevalue(checkpoint)
    alone = logits_of_all_steps(folder, 1)[0]
    for logits in logits_of_all_steps(folder, tp_size):
        assert relative_error(logits, alone) <= BETWEEN_RANKS


def test_a_prompt_in_two_pieces_gives_the_logits_of_the_whole(tiny):
    model = load(tiny, LoadOptions(dtype=torch.float32)).models[0]
    tokens, positions, cache = torch.tensor(PROMPT), torch.arange(len(PROMPT)), model.make_cache()
    pieces = [model(tokens[part], positions[part], cache) for part in (slice(0, 5), slice(5, None))]
    assert relative_error(torch.cat(pieces), model(tokens, positions)) <= BETWEEN_RANKS


def test_greedy_generation_repeats_the_likeliest_token_of_a_prefill(tiny):
    loaded = load(tiny, LoadOptions(dtype=torch.float32))
    new_ids = generate(loaded, PROMPT, 4)
    everything = torch.tensor(PROMPT + new_ids)
    logits = loaded.models[0](everything, torch.arange(len(everything)))
    assert logits[len(PROMPT) - 1 : -1].argmax(-1).tolist() == new_ids


def test_triton_kernels_give_the_logits_of_the_reference(tiny_fp8, monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    module = importlib.import_module("backends.native.kernels.triton.fused_qkvzba_split_reshape_cat")
    importlib.reload(module)  # decorated anew, with the interpreter on
    options = {"tp_size": 2, "dtype": torch.float32}
    loads = [load(tiny_fp8, LoadOptions(**options, kernels=kind)) for kind in ("reference", "triton")]
    assert loads[1].models[0].model.layers[0].linear_attn.split_projections is module.fused_qkvzba_split_reshape_cat
    tokens, positions = torch.tensor(PROMPT), torch.arange(len(PROMPT))
    reference, candidate = (run_ranks(2, lambda rank, of=of: of.models[rank](tokens, positions))[0] for of in loads)
    assert torch.equal(reference, candidate)
