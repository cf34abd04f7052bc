"""Every architecture against transformers on the same checkpoint: each layer, prefill, decode, any number of ranks."""

from __future__ import annotations

import functools

import pytest
import torch

from backends.native.checkpoint.synthesize import write_checkpoint
from backends.native.config import ModelConfig
from backends.native.generate import generate
from backends.native.loader import LoadOptions, load
from backends.native.parallel.lockstep import run_ranks
from backends.native.registry import architecture_module, declared

transformers = pytest.importorskip("transformers")
ARCHITECTURES = sorted(name for names in declared("models", "ARCHITECTURES").values() for name in names)
PUBLISHED = [name for name in ARCHITECTURES if name not in ("Qwen3_5ForCausalLM", "Qwen3_5MoeForCausalLM")]
PROMPT = [(7 * position) % 90 + 3 for position in range(12)]
DECODED = [5, 61, 17]
PER_LAYER, BETWEEN_RANKS, BFLOAT16_NOISE = 1e-4, 1e-5, 1.25


def relative_error(candidate, reference):
    return ((candidate - reference).norm() / reference.norm()).item()


def typical_error(candidate, reference):
    """The median over tokens: rounding sends a token whose experts are nearly tied to another one."""
    return ((candidate - reference).norm(dim=-1) / reference.norm(dim=-1)).median().item()


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


def layers_of(model):
    """The decoder layers, beside a model of images or alone."""
    return getattr(model.model, "language_model", model.model).layers


def reference_steps(folder, architecture):
    model = getattr(transformers, architecture).from_pretrained(folder, dtype=torch.float32).float().eval()
    cache = transformers.DynamicCache(config=model.config)
    for ids, _ in steps():
        tokens = torch.tensor([ids])
        layers, output = hidden_states(
            layers_of(model), lambda tokens=tokens: model(input_ids=tokens, past_key_values=cache, use_cache=True)
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
    (model,) = load(folder, LoadOptions(dtype=torch.float32)).models
    cache = model.make_cache()
    expected = reference_steps(folder, type(model).__name__)
    for (ids, at), (expected_layers, expected_logits) in zip(steps(), expected, strict=True):
        tokens, positions = torch.tensor(ids), torch.arange(at, at + len(ids))
        layers, logits = hidden_states(
            layers_of(model), lambda tokens=tokens, positions=positions: model(tokens, positions, cache)
        )
        errors = [relative_error(*pair) for pair in zip(layers, expected_layers, strict=True)]
        assert max(errors) <= PER_LAYER, errors
        assert relative_error(logits, expected_logits) <= PER_LAYER


def config_of(architecture, changes=None):
    """The tiny config under that architecture's name; a language model that stands alone has no config around it."""
    config = architecture_module(architecture).tiny_config()
    if architecture not in config["architectures"]:
        config = config["text_config"] | {"architectures": [architecture]}
    return {key: value for key, value in (config | (changes or {})).items() if value is not None}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, as_fp8):
    """The folder of a tiny checkpoint of an architecture, in the model's dtype or in FP8 blocks."""

    @functools.cache
    def written(architecture, is_fp8):
        config = config_of(architecture)
        kept = architecture_module(architecture).modules_to_not_convert(ModelConfig.from_fields(config))
        folder = tmp_path_factory.mktemp(architecture)
        config = as_fp8(config, kept) if is_fp8 else config
        return write_checkpoint(folder, config, seed=0, max_file_bytes=16 << 20)

    return written


@pytest.fixture
def fp8_without_accelerate(monkeypatch):
    # transformers asks for accelerate before it reads float8 files, but dequantizing on a CPU does not use it.
    quantizer = pytest.importorskip("transformers.quantizers.quantizer_finegrained_fp8")
    monkeypatch.setattr(quantizer, "is_accelerate_available", lambda: True)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_layer_equals_transformers_in_prefill_and_decode(checkpoint, architecture):
    assert_equal_to_transformers(checkpoint(architecture, False))


@pytest.mark.parametrize("architecture", PUBLISHED)
def test_a_block_quantized_load_equals_the_dequantized_load_of_transformers(
    checkpoint, architecture, fp8_without_accelerate
):
    assert_equal_to_transformers(checkpoint(architecture, True))


@pytest.mark.parametrize("tp_size", [2, 4])
@pytest.mark.parametrize("is_fp8", [False, True])
@pytest.mark.parametrize("architecture", PUBLISHED)
def test_logits_do_not_depend_on_the_tensor_parallel_size(checkpoint, architecture, is_fp8, tp_size):
    folder = checkpoint(architecture, is_fp8)
    alone = logits_of_all_steps(folder, 1)[0]
    for logits in logits_of_all_steps(folder, tp_size):
        assert relative_error(logits, alone) <= BETWEEN_RANKS


VARIANTS = {
    "LlamaForCausalLM": [
        {"attention_bias": True},
        {"mlp_bias": True},
        {"tie_word_embeddings": True},
        {"head_dim": None, "num_key_value_heads": None},
        {"rope_scaling": None},
    ],
    "Qwen3ForCausalLM": [{"attention_bias": True}, {"tie_word_embeddings": True}],
    "Qwen3MoeForCausalLM": [
        {"norm_topk_prob": False},
        {"mlp_only_layers": []},
        {"decoder_sparse_step": 2},
        {"num_experts": None, "num_local_experts": 4},
    ],
    "Qwen3NextForCausalLM": [
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
    "Qwen3_5ForCausalLM": [
        {"tie_word_embeddings": True},
        {"linear_num_value_heads": 4},
        {"layer_types": ["full_attention", "linear_attention"]},
    ],
    "Qwen3_5MoeForCausalLM": [{"attention_bias": True}],
}
SMALL = {
    "num_hidden_layers": 2,
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_experts": 4,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "head_dim": 16,
    "full_attention_interval": 2,
    "linear_key_head_dim": 16,
    "linear_num_value_heads": 8,
    "linear_value_head_dim": 8,
}


def small_config(architecture, change):
    """A small config of the sizes the architecture has."""
    config = config_of(architecture)
    sizes = {key: value for key, value in SMALL.items() if key in config}
    return {key: value for key, value in (config | sizes | change).items() if value is not None}


@pytest.mark.parametrize(
    ("architecture", "change"),
    [
        pytest.param(architecture, change, id=f"{architecture}-{'-'.join(change)}")
        for architecture, changes in VARIANTS.items()
        for change in changes
    ],
)
def test_a_variant_of_the_config_equals_transformers_and_itself_on_two_ranks(tmp_path, architecture, change):
    write_checkpoint(tmp_path, small_config(architecture, change), seed=3, max_file_bytes=1 << 30)
    assert_equal_to_transformers(tmp_path)
    alone = logits_of_all_steps(tmp_path, 1)[0]
    assert relative_error(logits_of_all_steps(tmp_path, 2)[1], alone) <= BETWEEN_RANKS


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_checkpoint_that_transformers_wrote_equals_it_and_only_its_images_are_left_over(tmp_path, architecture):
    config = config_of(architecture)
    classes = transformers.AutoConfig.for_model(config.pop("model_type"), **config)
    torch.manual_seed(0)
    getattr(transformers, architecture)(classes).float().save_pretrained(tmp_path)
    (report,) = load(tmp_path).reports
    assert report.never_used == ()
    assert bool(report.ignored) == ("ConditionalGeneration" in architecture)
    assert all(name.startswith("model.visual.") for name in report.ignored)
    assert_equal_to_transformers(tmp_path)


def test_an_embedding_tied_outside_the_text_config_is_the_head(tmp_path):
    config = config_of("Qwen3_5ForConditionalGeneration", {"tie_word_embeddings": True})
    write_checkpoint(tmp_path, config, seed=0, max_file_bytes=1 << 30)
    (model,) = load(tmp_path).models
    assert model.lm_head.weight is model.decoder.embed_tokens.weight
    assert_equal_to_transformers(tmp_path)


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Qwen3NextForCausalLM", "Qwen3_5ForCausalLM"])
def test_a_prompt_in_two_pieces_gives_the_logits_of_the_whole(checkpoint, architecture):
    model = load(checkpoint(architecture, False), LoadOptions(dtype=torch.float32)).models[0]
    tokens, positions, cache = torch.tensor(PROMPT), torch.arange(len(PROMPT)), model.make_cache()
    pieces = [model(tokens[part], positions[part], cache) for part in (slice(0, 5), slice(5, None))]
    assert relative_error(torch.cat(pieces), model(tokens, positions)) <= BETWEEN_RANKS


@pytest.mark.parametrize("architecture", PUBLISHED)
def test_in_bfloat16_the_error_is_that_of_transformers_in_bfloat16(checkpoint, architecture):
    folder, tokens, positions = checkpoint(architecture, False), torch.tensor(PROMPT), torch.arange(len(PROMPT))
    exact, candidate = (
        load(folder, LoadOptions(dtype=dtype)).models[0](tokens, positions) for dtype in (torch.float32, torch.bfloat16)
    )
    reference = getattr(transformers, architecture).from_pretrained(folder, dtype=torch.bfloat16).eval()
    with torch.no_grad():
        noise = typical_error(reference(input_ids=tokens[None]).logits[0].float(), exact)
    assert typical_error(candidate.float(), exact) <= BFLOAT16_NOISE * noise


def test_greedy_generation_repeats_the_likeliest_token_of_a_prefill(tiny):
    loaded = load(tiny, LoadOptions(dtype=torch.float32))
    new_ids = generate(loaded, PROMPT, 4)
    everything = torch.tensor(PROMPT + new_ids)
    logits = loaded.models[0](everything, torch.arange(len(everything)))
    assert logits[len(PROMPT) - 1 : -1].argmax(-1).tolist() == new_ids


def test_triton_kernels_give_the_logits_of_the_reference_on_two_ranks(small_config, tmp_path, monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    options = {"tp_size": 2, "dtype": torch.float32}
    folder = write_checkpoint(tmp_path, small_config, seed=0, max_file_bytes=1 << 20)
    loads = [load(folder, LoadOptions(**options, kernels=kind)) for kind in ("reference", "triton")]
    mixer = loads[1].models[0].model.layers[0].linear_attn
    assert mixer.split_projections.__module__ == "backends.native.kernels.triton.fused_qkvzba_split_reshape_cat"
    tokens, positions = torch.tensor(PROMPT), torch.arange(len(PROMPT))
    reference, candidate = (run_ranks(2, lambda rank, of=of: of.models[rank](tokens, positions))[0] for of in loads)
    assert relative_error(candidate, reference) <= BETWEEN_RANKS
