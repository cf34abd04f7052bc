"""Qwen3.5 stores in parts what the model fuses: ignore lists that name parts, and scales of one element."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from backends.native.checkpoint.synthesize import write_checkpoint
from backends.native.config import ModelConfig
from backends.native.errors import SkipDecisionError
from backends.native.loader import LoadOptions, load
from backends.native.models import qwen3_5

NAME = "model.language_model.layers.0.linear_attn"
PARTS = ("in_proj_qkv", "in_proj_z")


def config_with(ignored, **quantization):
    """The tiny config with FP8 weights except the ignored ones and those that are published in the model's dtype."""
    config = qwen3_5.tiny_config()
    config["text_config"]["num_hidden_layers"] = 1
    config["text_config"]["layer_types"] = ["linear_attention"]
    kept = qwen3_5.modules_to_not_convert(ModelConfig.from_fields(config))
    return config | {
        "quantization_config": {"quant_method": "fp8", "modules_to_not_convert": [*kept, *ignored]} | quantization
    }


def projections(model):
    return model.decoder.layers[0].linear_attn


@pytest.mark.parametrize("fallback", [{}, {"in_proj_qkvz": ["q_proj"]}], ids=["no-fallback", "fallback-of-others"])
@pytest.mark.parametrize("tp_size", [1, 4])
def test_an_ignore_list_that_names_the_parts_leaves_the_fused_projection_in_the_models_dtype(
    tmp_path, fallback, tp_size
):
    config = config_with([f"{NAME}.{part}" for part in PARTS], weight_block_size=[128, 128])
    write_checkpoint(tmp_path, config, seed=0, max_file_bytes=1 << 30)
    loaded = load(tmp_path, LoadOptions(tp_size=tp_size, fused_fallback=fallback))
    for model in loaded.models:
        for projection in (projections(model).in_proj_qkvz, projections(model).in_proj_ba):
            assert [name for name, _ in projection.named_parameters()] == ["weight"]
            assert projection.weight.dtype == torch.bfloat16
        assert projections(model).out_proj.weight.dtype == torch.float8_e4m3fn
    assert all(report.never_used == () for report in loaded.reports)


def test_an_ignore_list_that_names_one_part_only_is_an_error_that_names_both(tmp_path):
    config = config_with([f"{NAME}.in_proj_z"], weight_block_size=[128, 128])
    write_checkpoint(tmp_path, config, seed=0, max_file_bytes=1 << 30)
    with pytest.raises(SkipDecisionError, match=rf"names {NAME}.in_proj_z and not {NAME}.in_proj_qkv"):
        load(tmp_path)


@pytest.mark.parametrize("shape", [(), (1,)], ids=["scalar", "one-element"])
@pytest.mark.parametrize("tp_size", [1, 2, 4])
def test_one_scale_of_three_projections_counts_for_each_of_them(tmp_path, tp_size, shape):
    write_checkpoint(tmp_path, config_with([]), seed=0, max_file_bytes=1 << 30)
    (path,) = tmp_path.glob("*.safetensors")
    tensors = load_file(path)
    tensors |= {name: tensor.reshape(shape) for name, tensor in tensors.items() if name.endswith("weight_scale")}
    save_file(tensors, path)
    stored = [tensors[f"{NAME}.{part}.weight"].float() * tensors[f"{NAME}.{part}.weight_scale"] for part in PARTS]
    expected = torch.cat(stored).split([512, 512, 512, 512])
    loaded = load(tmp_path, LoadOptions(tp_size=tp_size, dtype=torch.float32))
    for rank, model in enumerate(loaded.models):
        projection = projections(model).in_proj_qkvz
        scales = projection.weight_scale.flatten()
        assert scales.tolist() == [
            tensors[f"{NAME}.{part}.weight_scale"].item() for part in (PARTS[0],) * 3 + PARTS[1:]
        ]
        for part, scale, whole in zip(projection.weight.float().chunk(4), scales, expected, strict=True):
            assert torch.equal(part * scale, whole.chunk(tp_size)[rank])


def test_block_scales_of_three_projections_are_split_by_blocks(tmp_path):
    config = config_with([], weight_block_size=[128, 128])
    write_checkpoint(tmp_path, config, seed=0, max_file_bytes=1 << 30)
    (path,) = tmp_path.glob("*.safetensors")
    scales = torch.cat([load_file(path)[f"{NAME}.{part}.weight_scale_inv"] for part in PARTS])
    loaded = load(tmp_path, LoadOptions(tp_size=4))
    found = torch.stack([projections(model).in_proj_qkvz.weight_scale_inv for model in loaded.models], dim=1)
    assert torch.equal(found.flatten(0, 1), scales)
