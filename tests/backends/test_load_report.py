"""What a load says about tensors that are missing, left over or ignored."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

from backends.native.checkpoint.index import INDEX_NAME
from backends.native.checkpoint.synthesize import write_checkpoint
from backends.native.errors import LoadError
from backends.native.loader import LoadOptions, load

LAYER = "model.layers.0"


@pytest.fixture
def edit(small_config, tmp_path):
    """Write a small checkpoint, change its tensors, give its folder."""
    write_checkpoint(tmp_path, small_config, seed=0, max_file_bytes=1 << 30)

    def edited(change):
        (path,) = tmp_path.glob("*.safetensors")
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)
        (tmp_path / INDEX_NAME).write_text(json.dumps({"weight_map": dict.fromkeys(tensors, path.name)}))
        return tmp_path

    return edited


@pytest.mark.parametrize(
    ("missing", "described"),
    [
        (f"{LAYER}.linear_attn.A_log", f"{LAYER}.linear_attn.A_log"),
        ("model.layers.1.self_attn.k_proj.weight", r"model.layers.1.self_attn.qkv_proj.weight \(missing k\)"),
        (f"{LAYER}.mlp.experts.2.up_proj.weight", rf"{LAYER}.mlp.experts.w13_weight \(missing w3 of expert 2\)"),
        (f"{LAYER}.mlp.shared_expert.gate_proj.weight", r"shared_expert.gate_up_proj.weight \(missing 0\)"),
    ],
)
@pytest.mark.parametrize("tp_size", [1, 2])
def test_a_missing_tensor_is_an_error_that_names_the_parameter_and_the_shard(edit, missing, described, tp_size):
    folder = edit(lambda tensors: tensors.pop(missing))
    with pytest.raises(LoadError, match=f"1 parameters of Qwen3NextForCausalLM were never filled: .*{described}"):
        load(folder, LoadOptions(tp_size=tp_size))


def test_one_tensor_under_another_name_is_missing_and_left_over(edit, caplog):
    folder = edit(
        lambda tensors: tensors.update({f"{LAYER}.mlp.router.weight": tensors.pop(f"{LAYER}.mlp.gate.weight")})
    )
    with pytest.raises(LoadError, match=f"{LAYER}.mlp.gate.weight"):
        load(folder)


def test_a_tensor_nothing_asked_for_is_named_in_the_log(edit, caplog):
    caplog.set_level(logging.INFO)
    folder = edit(lambda tensors: tensors.update({f"{LAYER}.mlp.gate.weight_scale": torch.ones(1)}))
    (report,) = load(folder).reports
    assert report.never_used == (f"{LAYER}.mlp.gate.weight_scale",)
    assert f"never used 1 tensors: {LAYER}.mlp.gate.weight_scale" in caplog.text


def test_mtp_tensors_are_ignored_by_name_and_not_called_left_over(edit, caplog):
    caplog.set_level(logging.INFO)
    folder = edit(lambda tensors: tensors.update({"mtp.fc.weight": torch.ones(1), "mtp.norm.weight": torch.ones(1)}))
    for report in load(folder, LoadOptions(tp_size=2)).reports:
        assert report.never_used == ()
        assert set(report.ignored) == {"mtp.fc.weight", "mtp.norm.weight"}
    assert "ignored 2 tensors by name: mtp." in caplog.text


def test_projections_stored_fused_fill_the_fused_parameter(edit):
    def fuse(tensors):
        name = "model.layers.1.self_attn.{}_proj.weight".format
        tensors[name("qkv")] = torch.cat([tensors.pop(name(proj)) for proj in "qkv"])

    (report,) = load(edit(fuse)).reports
    assert report.filled == report.parameters


def test_the_log_counts_tensors_files_and_parameters(tiny, caplog):
    caplog.set_level(logging.INFO)
    loaded = load(tiny, LoadOptions(tp_size=2))
    files = len(list(tiny.glob("*.safetensors")))
    tensors = len(json.loads((tiny / INDEX_NAME).read_text())["weight_map"])
    assert f"loading {tensors} tensors from {files} files" in caplog.text
    for rank, report in enumerate(loaded.reports):
        assert report.filled == report.parameters == len(list(loaded.models[rank].named_parameters()))
        assert f"rank {rank}: filled {report.filled} of {report.parameters} parameters" in caplog.text
