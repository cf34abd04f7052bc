"""config.json and the names in it: wrong types, unknown names, and methods that claim one config."""

from __future__ import annotations

import json

import pytest
import torch

from backends.native import registry
from backends.native.config import ModelConfig, read_config, text_fields
from backends.native.errors import ConfigError, UnknownNameError
from backends.native.layers.rotary import RopeParameters
from backends.native.models.qwen3_next import Qwen3NextConfig, tiny_config
from backends.native.registry import architecture_module, declared, quantization_config


def model_config(**changes):
    return ModelConfig.from_fields(tiny_config() | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": "256"}, "hidden_size is '256', expected int"),
        ({"hidden_size": True}, "hidden_size is True, expected int"),
        ({"hidden_size": None}, "hidden_size is absent, expected int"),
        ({"norm_topk_prob": 1}, "norm_topk_prob is 1, expected bool"),
        ({"mlp_only_layers": [0, "1"]}, "mlp_only_layers is '1', expected int"),
        ({"rms_norm_eps": "1e-6"}, "rms_norm_eps is '1e-6', expected float"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', expected 'silu'"),
        ({"layer_types": ["full_attention"]}, "layer_types has 1 entries, expected 4"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope_type is 'yarn', expected 'default' or 'llama3'"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "rope_type is 'linear', expected 'default' or 'llama3'"),
        (
            {"rope_scaling": {"rope_type": "llama3", "low_freq_factor": 4, "high_freq_factor": 4}},
            "low_freq_factor is 4.0 and high_freq_factor 4.0, expected the first to be the smaller",
        ),
        ({"layer_types": ["full_attention"] * 3 + ["sliding_attention"]}, "layer_types has .'sliding_attention'."),
        ({"use_sliding_window": True}, "use_sliding_window is True, expected False"),
        ({"attn_output_gate": False}, "attn_output_gate is False, expected True"),
        ({"text_config": []}, "text_config is .., expected an object"),
        ({"rope_parameters": [1]}, "rope_parameters is .1., expected an object"),
    ],
)
def test_a_wrong_field_is_an_error_that_names_it(changes, message):
    with pytest.raises(ConfigError, match=f"config.json: {message}"):
        Qwen3NextConfig.from_model_config(model_config(**changes))


def test_a_null_field_takes_its_default_and_a_whole_number_is_a_float():
    config = Qwen3NextConfig.from_model_config(model_config(mlp_only_layers=None, rope_theta=500))
    assert config.mlp_only_layers == ()
    assert config.rope.rope_theta == 500.0


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_theta": 5e5, "partial_rotary_factor": 0.5},
        {"rope_parameters": {"rope_theta": 5e5, "partial_rotary_factor": 0.5, "rope_type": "default"}},
        {"rope_theta": 1.0, "rope_parameters": {"rope_theta": 5e5, "partial_rotary_factor": 0.5}},
    ],
)
def test_both_spellings_of_rope_are_read_and_the_nested_one_wins(fields):
    assert RopeParameters.from_fields(fields, partial_rotary_factor=0.25) == RopeParameters(5e5, 0.5)


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_the_dtype_is_read_under_both_of_its_names(key):
    fields = {name: value for name, value in tiny_config().items() if name != "dtype"}
    assert ModelConfig.from_fields(fields | {key: "float16"}).dtype == torch.float16


@pytest.mark.parametrize("outside", [{}, {"dtype": None}])
def test_the_dtype_and_the_fields_are_read_from_the_text_config(outside):
    fields = {"architectures": ["Any"], "text_config": {"dtype": "float16", "tie_word_embeddings": True}} | outside
    assert ModelConfig.from_fields(fields).dtype == torch.float16
    assert text_fields(fields)["tie_word_embeddings"] is True
    assert text_fields(fields | {"tie_word_embeddings": False})["tie_word_embeddings"] is False


@pytest.mark.parametrize(("kind", "factor"), [("high", 1.0), ("low", 1 / 8)])
def test_llama3_scaling_keeps_high_frequencies_and_slows_low_ones_down(kind, factor):
    scaling = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64, "rope_theta": 1e6}
    plain, scaled = (
        RopeParameters.from_fields({"rope_parameters": scaling | changes}, partial_rotary_factor=1.0).frequencies(128)
        for changes in ({"rope_type": "default"}, {})
    )
    turns = 64 * plain / (2 * torch.pi)
    chosen = turns > 4 if kind == "high" else turns < 1
    assert chosen.any()
    assert torch.allclose(scaled[chosen], plain[chosen] * factor)
    assert ((scaled <= plain) & (scaled >= plain / 8)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": []}, r"architectures is \[\], expected one name"),
        ({"architectures": None}, "architectures is absent"),
        ({"dtype": "int8"}, "dtype 'int8' is not supported"),
        ({"quantization_config": "fp8"}, "quantization_config is 'fp8', expected an object"),
    ],
)
def test_a_wrong_shared_field_is_an_error(changes, message):
    with pytest.raises(ConfigError, match=message):
        model_config(**changes)


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[]", "holds a list"), (None, "cannot be read")])
def test_an_unreadable_config_is_an_error_that_names_the_file(tmp_path, text, message):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=f"config.json {message}"):
        read_config(tmp_path)


def test_a_config_is_read_from_its_folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(tiny_config()))
    assert read_config(tmp_path).architecture == "Qwen3NextForCausalLM"


def test_an_unknown_architecture_is_answered_with_the_nearest():
    with pytest.raises(
        UnknownNameError, match=r"'Qwen3NextForCasualLM' is not known.\n.*did you mean Qwen3NextForCausalLM"
    ):
        architecture_module("Qwen3NextForCasualLM")


def test_an_unknown_method_is_answered_with_the_nearest_and_all_known_ones():
    with pytest.raises(UnknownNameError, match=r"quant_method 'fp88' is not known.\n.*did you mean fp8.*Known: .*fp8"):
        quantization_config(model_config(quantization_config={"quant_method": "fp88"}), {}, {})


def test_a_known_method_that_does_not_claim_the_config_says_what_it_wants():
    wants = r"UnquantizedConfig wants no quantization_config"
    with pytest.raises(ConfigError, match=rf"no method claims .* with quant_method None: {wants}"):
        quantization_config(model_config(quantization_config={"bits": 8}), {}, {})


def test_two_methods_that_claim_one_config_are_both_named(monkeypatch):
    one = registry._config_class("fp8")
    two = type("OtherConfig", (one,), {"__module__": "other"})
    monkeypatch.setattr(registry, "declared", lambda *_: {"fp8": ("fp8",), "other": ("fp8",)})
    monkeypatch.setattr(registry, "_config_class", {"fp8": one, "other": two}.__getitem__)
    with pytest.raises(ConfigError, match="fp8:Fp8Config and other:OtherConfig both claim"):
        quantization_config(
            model_config(quantization_config={"quant_method": "fp8", "weight_block_size": [1, 1]}), {}, {}
        )


def test_a_plugin_is_a_file_that_declares_what_it_is_for():
    models = declared("models", "ARCHITECTURES")
    assert models["qwen3_next"] == ("Qwen3NextForCausalLM",)
    assert models["qwen3_5"] == ("Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM")
    assert set(models) == {"llama", "qwen3", "qwen3_5", "qwen3_5_moe", "qwen3_moe", "qwen3_next"}
    methods = declared("quantization", "QUANT_METHODS")
    assert methods.items() >= {"fp8": ("fp8", "fbgemm_fp8"), "unquantized": (None,)}.items()
    assert "skip" not in methods
