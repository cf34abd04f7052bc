"""Names on disk and where they go: fused experts, tensors of several shards, names an architecture has no use for."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from backends.native.checkpoint.index import INDEX_NAME
from backends.native.checkpoint.synthesize import write_checkpoint
from backends.native.config import ModelConfig
from backends.native.errors import LoadError, ShapeError
from backends.native.loader import LoadOptions, load
from backends.native.models import llama, qwen3_5, qwen3_5_moe
from backends.native.weights import NameMapping, load_model_weights

PREFIX = "model.language_model.layers.0"
SIZES = {"num_hidden_layers": 2, "full_attention_interval": 2, "hidden_size": 64, "vocab_size": 64}
EXPERTS = {"num_experts": 4, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}


@pytest.fixture
def edit(tmp_path):
    """Write a checkpoint of one of the models, change its tensors, give its folder."""

    def edited(model, sizes, change, quantize=None):
        config = model.tiny_config()
        config["text_config"] |= sizes
        if quantize is not None:
            config = quantize(config, model.modules_to_not_convert(ModelConfig.from_fields(config)))
        write_checkpoint(tmp_path, config, seed=0, max_file_bytes=1 << 30)
        (path,) = tmp_path.glob("*.safetensors")
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)
        (tmp_path / INDEX_NAME).write_text(json.dumps({"weight_map": dict.fromkeys(tensors, path.name)}))
        return tmp_path

    return edited


def apart(tensors):
    """Store each expert by itself."""
    for name in [name for name in tensors if ".experts." in name]:
        stem, _, proj = name.rpartition(".")
        projections = ("gate_proj", "up_proj") if proj == "gate_up_proj" else ("down_proj",)
        for expert, stacked in enumerate(tensors.pop(name)):
            for projection, part in zip(projections, stacked.chunk(len(projections)), strict=True):
                tensors[f"{stem}.{expert}.{projection}.weight"] = part.contiguous()


@pytest.mark.parametrize("tp_size", [1, 2])
def test_experts_in_one_tensor_fill_what_experts_apart_fill(edit, tp_size):
    loads = [load(edit(qwen3_5_moe, SIZES | EXPERTS, change), LoadOptions(tp_size=tp_size)) for change in (dict, apart)]
    for fused, separate in zip(*(one.models for one in loads), strict=True):
        expected = dict(separate.named_parameters())
        for name, parameter in fused.named_parameters():
            assert torch.equal(parameter, expected[name]), name
    assert all(report.never_used == () for one in loads for report in one.reports)


def together(tensors):
    """Store all experts, and their block scales, as two tensors each."""
    names = [name for name in tensors if re.search(r"\.experts\.0\.gate_proj\.", name)]
    for first in names:
        stem, suffix = first.split(".0.gate_proj.weight")

        def stacked(*projections, stem=stem, suffix=suffix):
            parts = [[tensors.pop(f"{stem}.{e}.{p}.weight{suffix}") for p in projections] for e in range(4)]
            return torch.stack([torch.cat(of_expert) for of_expert in parts])

        tensors[f"{stem}.gate_up_proj{suffix}"] = stacked("gate_proj", "up_proj")
        tensors[f"{stem}.down_proj{suffix}"] = stacked("down_proj")


@pytest.mark.parametrize("tp_size", [1, 2])
def test_block_scales_of_experts_in_one_tensor_are_taken_apart_as_their_weights_are(edit, as_fp8, tp_size):
    sizes = SIZES | EXPERTS | {"moe_intermediate_size": 256, "shared_expert_intermediate_size": 256}
    separate, fused = (
        load(edit(qwen3_5_moe, sizes, change, as_fp8), LoadOptions(tp_size=tp_size)) for change in (dict, together)
    )
    for rank in range(tp_size):
        expected = dict(separate.models[rank].named_parameters())
        assert any(name.endswith("w13_weight_scale_inv") for name in expected)
        for name, parameter in fused.models[rank].named_parameters():
            assert torch.equal(parameter.float(), expected[name].float()), name
    assert fused.reports[0].never_used == ()


def test_the_tensor_of_all_experts_is_needed(edit):
    with pytest.raises(LoadError, match=rf"{PREFIX}.mlp.experts.w2_weight \(missing w2 of expert 0, w2 of expert 1"):
        load(edit(qwen3_5_moe, SIZES | EXPERTS, lambda tensors: tensors.pop(f"{PREFIX}.mlp.experts.down_proj")))


def test_fewer_experts_than_the_config_says_leave_shards_missing(edit):
    name = f"{PREFIX}.mlp.experts.gate_up_proj"
    with pytest.raises(LoadError, match=r"w13_weight \(missing w1 of expert 3, w3 of expert 3\)"):
        load(edit(qwen3_5_moe, SIZES | EXPERTS, lambda tensors: tensors.update({name: tensors[name][:3].clone()})))


def test_gate_and_up_rows_that_do_not_halve_are_an_error_that_names_the_tensor():
    model = torch.nn.Module()
    model.experts = torch.nn.Module()
    model.experts.w13_weight = torch.nn.Parameter(torch.empty(2, 4, 3))
    with pytest.raises(ShapeError, match=r"mlp.experts.gate_up_proj is \[2, 5, 3\], expected \[experts, 2 equal parts"):
        load_model_weights(
            torch.nn.ModuleDict({"mlp": model}),
            [("mlp.experts.gate_up_proj", torch.empty(2, 5, 3))],
            NameMapping(stacked={}),
        )


@pytest.mark.parametrize(
    ("missing", "described"),
    [
        ("in_proj_qkv.weight", r"in_proj_qkvz.weight \(missing \(0, 1, 2\)\)"),
        ("in_proj_z.weight", r"in_proj_qkvz.weight \(missing 3\)"),
        ("in_proj_a.weight", r"in_proj_ba.weight \(missing 1\)"),
    ],
)
def test_a_missing_part_of_a_fused_projection_is_named_by_its_shards(edit, missing, described):
    with pytest.raises(LoadError, match=f"1 parameters of .* never filled: {PREFIX}.linear_attn.{described}"):
        load(edit(qwen3_5, SIZES, lambda tensors: tensors.pop(f"{PREFIX}.linear_attn.{missing}")))


def test_images_and_multi_token_prediction_are_ignored_by_name(edit):
    extra = {"model.visual.pos_embed.weight": torch.ones(2), "mtp.fc.weight": torch.ones(2)}
    (report,) = load(edit(qwen3_5, SIZES, lambda tensors: tensors.update(extra))).reports
    assert set(report.ignored) == set(extra)
    assert report.never_used == ()


def test_stored_frequencies_are_ignored_by_name():
    mapping = llama.LlamaForCausalLM.name_mapping
    assert mapping.ignores("model.layers.0.self_attn.rotary_emb.inv_freq")
    assert not mapping.ignores("model.layers.0.self_attn.o_proj.weight")
