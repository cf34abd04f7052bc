"""Synthesized checkpoints: reproducible, of the promised size, quantized where the config says so."""

from __future__ import annotations

import json

import torch

from backends.native.checkpoint.index import INDEX_NAME, open_checkpoint
from backends.native.checkpoint.reader import iterate_weights
from backends.native.checkpoint.synthesize import write_checkpoint
from backends.native.config import ModelConfig
from backends.native.models import qwen3_next


def written(folder, config, **options):
    return write_checkpoint(folder, config, **{"seed": 0, "max_file_bytes": 1 << 30} | options)


def contents(folder):
    return dict(iterate_weights(open_checkpoint(folder)))


def test_the_same_seed_writes_the_same_bytes_and_another_seed_other_values(small_config, tmp_path):
    folders = [written(tmp_path / str(number), small_config, seed=seed) for number, seed in enumerate((7, 7, 8))]
    bytes_of = [[path.read_bytes() for path in sorted(folder.iterdir())] for folder in folders]
    assert bytes_of[0] == bytes_of[1] != bytes_of[2]


def test_values_do_not_depend_on_how_the_files_are_cut(small_config, tmp_path):
    whole = contents(written(tmp_path / "whole", small_config))
    cut = contents(written(tmp_path / "cut", small_config, max_file_bytes=20_000))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_files_stay_within_the_limit_and_the_index_names_all(small_config, tmp_path):
    limit = 50_000
    folder = written(tmp_path, small_config, max_file_bytes=limit)
    checkpoint = open_checkpoint(folder)
    assert len(checkpoint.files) > 2
    for file in checkpoint.files:
        assert sum(entry.end_byte - entry.start_byte for entry in file.entries) <= limit
    index = json.loads((folder / INDEX_NAME).read_text())
    assert index["metadata"]["total_size"] == sum(e.end_byte - e.start_byte for e in checkpoint.entries())
    assert not list(folder.glob("*.tmp"))


def test_names_shapes_and_dtypes_are_those_of_the_architecture(small_config, tmp_path):
    specs = {spec.name: spec for spec in qwen3_next.tensors(ModelConfig.from_fields(small_config))}
    tensors = contents(written(tmp_path, small_config))
    assert tensors.keys() == specs.keys()
    for name, spec in specs.items():
        assert (tuple(tensors[name].shape), tensors[name].dtype) == (spec.shape, spec.dtype)


def test_ignored_modules_stay_in_the_models_dtype_and_the_others_get_scales(as_fp8, small_config, tmp_path):
    config = as_fp8(small_config)
    tensors = contents(written(tmp_path, config))
    ignored = config["quantization_config"]["modules_to_not_convert"]
    for name in ignored:
        assert tensors[f"{name}.weight"].dtype == torch.bfloat16
        assert f"{name}.weight_scale_inv" not in tensors
    scaled = {name.removesuffix("_scale_inv") for name in tensors if name.endswith("_scale_inv")}
    assert scaled == {name for name, tensor in tensors.items() if tensor.dtype == torch.float8_e4m3fn}
    assert "model.layers.0.mlp.experts.0.gate_proj.weight" in scaled


def test_progress_counts_up_to_the_number_of_tensors(small_config, tmp_path):
    seen = []
    written(tmp_path, small_config, progress=lambda done, total: seen.append((done, total)))
    total = len(list(qwen3_next.tensors(ModelConfig.from_fields(small_config))))
    assert seen == [(done, total) for done in range(1, total + 1)]


def test_every_part_of_the_tiny_checkpoint_is_whole_blocks_at_tensor_parallel_size_4():
    config = qwen3_next.Qwen3NextConfig.from_model_config(ModelConfig.from_fields(qwen3_next.tiny_config()))
    shape = config.delta_net_shape()
    sharded = (
        shape.key_dim,
        shape.value_dim,
        config.moe_intermediate_size,
        config.num_attention_heads * config.head_dim,
    )
    assert all(size % (4 * 128) == 0 for size in sharded)
    assert 2 * shape.num_v_heads // 4 < 128
