"""NVFP4 without the mapping of fused names, and GGUF through the classes for the Ascend NPU, on the real SGLang."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest
import torch

from sessions.decisions import decisions

pytestmark = pytest.mark.engine
FLOAT4 = "Qwen3_5ForConditionalGeneration/nvfp4"
AT = "model.language_model.layers.0.linear_attn"


def test_a_fused_name_without_a_mapping_is_a_contradiction_and_the_failed_call_follows(trace):
    traced = trace("0.5.23", FLOAT4, tp=2, before=("no_fused_mapping.py",))
    assert traced.code == 4
    found = {one["id"]: one for one in traced.verdict["findings"]}
    root = found["F1"]
    assert (root["class"], root["module"], root["seen"]) == ("precision/contradiction", f"{AT}.in_proj_ba", 3)
    assert "names in_proj_b and in_proj_a; the model's packed_modules_mapping has no in_proj_ba" in root["sentence"]
    followed = found[root["explains"][0]]
    assert (followed["class"], followed["root"]) == ("host/failed", False)
    assert followed["parameter"] == "model.layers.0.linear_attn.in_proj_ba.weight"
    roots = [(one["class"], one["module"]) for one in found.values() if one["root"]]
    assert roots == [("precision/contradiction", f"{AT}.{name}") for name in ("in_proj_ba", "in_proj_qkvz")]


def test_with_the_mapping_the_parts_are_compared_and_the_modules_stay_as_they_are(trace):
    traced = trace("0.5.23", FLOAT4, tp=2)
    assert (traced.code, [one["class"] for one in traced.verdict["findings"]]) == (0, ["parameter/never-filled"])
    views = {view.module: view for view in decisions(traced.session)}
    for fused, parts in (("in_proj_ba", ["in_proj_b", "in_proj_a"]), ("in_proj_qkvz", ["in_proj_qkv", "in_proj_z"])):
        view = views[f"{AT}.{fused}"]
        assert (view.is_skipped, view.expansion_source, view.built) == (True, "model", "as is")
        assert [name.rpartition(".")[2] for name in view.tried] == parts
    assert views["model.language_model.layers.0.mlp.down_proj"].method == "ModelOptFp4LinearMethod"


@pytest.mark.parametrize(
    ("before", "method"), [((), "GGUFLinearMethod"), (("ascend_gguf.py",), "GGUFLinearAscendMethod")]
)
def test_a_gguf_file_is_recorded_whole_with_the_classes_of_both_devices(trace, before, method):
    traced = trace("0.5.11", "q8_gguf", tp=2, before=before)
    assert (traced.code, traced.verdict["findings"]) == (0, [])
    listed = {event.body.checkpoint_name for event in traced.of("tensor.listed")}
    # 25 tensors are on disk; 14 matrices come with their type first, and so do the two of the vocabulary.
    assert (len(listed), traced.verdict["counts"]["weight_loader_calls"]) == (25, 41)
    assert {event.body.method for event in traced.of("method.selected") if "_proj" in event.body.module} == {method}
    assert {event.body.module for event in traced.of("weights.processed") if event.body.method == method}
    assert traced.of("inspector.faulted") == []


def test_parts_that_are_joined_as_the_file_has_them_are_named(trace, checkpoints):
    import gguf

    traced = trace("0.5.23", "up_first_gguf", tp=2, before=("ascend_gguf.py",))
    (found,) = [one for one in traced.verdict["findings"] if one["severity"] == "error"]
    assert (traced.code, found["class"], found["seen"]) == (1, "shard/joined-order", 2)
    assert (found["module"], found["rank"]) == ("model.layers.0.mlp.gate_up_proj", 1)
    assert "up_proj before gate_proj" in found["sentence"]
    # The weight that the class made has up's values in the rows of gate.
    stored = {one.name: one for one in gguf.GGUFReader(checkpoints("up_first_gguf")).tensors}
    files = [stored[f"blk.0.ffn_{part}.weight"] for part in ("gate", "up")]
    gate, up = (torch.from_numpy(gguf.dequantize(one.data, one.tensor_type)).chunk(2)[1] for one in files)
    made = traced.told["processed"]["model.layers.0.mlp.gate_up_proj.dequantized_weight"]
    kinds = (torch.float16, torch.bfloat16)
    assert made in {digest(torch.cat((up, gate)).to(kind)) for kind in kinds}
    assert made not in {digest(torch.cat((gate, up)).to(kind)) for kind in kinds}


@pytest.fixture(params=["0.5.11", "0.5.23"])
def experts(trace, request):
    """Qwen3-MoE in mixed types of blocks, rank 1 of 2, through the classes for the NPU."""
    return trace(request.param, "Qwen3MoeForCausalLM/gguf", tp=2, before=("ascend_gguf.py",))


def test_every_part_of_every_expert_has_a_call_and_its_type_before_it(experts):
    assert (experts.code, experts.verdict["findings"], experts.of("inspector.faulted")) == (0, [], [])
    methods = {event.body.module: event.body.method for event in experts.of("method.selected")}
    assert methods["model.layers.0.mlp.experts"] == "GGUFMoEAscendMethod"
    calls = [one.body for one in experts.of("loader.called") if "layers.0.mlp.experts" in one.body.parameter]
    weights = [(one.expert_id, one.shard_id) for one in calls if one.parameter.endswith("_qweight")]
    assert Counter(weights) == {(expert, f"'{part}'"): 1 for expert in range(8) for part in ("w1", "w2", "w3")}
    names = [one.checkpoint_name for one in calls]
    assert all(names.index(f"{name}_type") < at for at, name in enumerate(names) if name.endswith(".qweight"))


def test_the_blocks_that_the_calls_name_are_those_that_the_classes_made_weights_of(experts, checkpoints):
    import gguf

    stored = {one.name: one for one in gguf.GGUFReader(checkpoints("Qwen3MoeForCausalLM/gguf")).tensors}
    layer, cuts = "model.layers.0.mlp.experts", {}
    for split in (one.body for one in experts.of("shard.split")):
        cuts[split.checkpoint_name] = (split.dim, slice(split.start, split.start + split.length))
    made = {"w13": {}, "w2": {}}
    for call in (one.body for one in experts.of("loader.called")):
        if call.parameter.startswith(layer) and call.parameter.endswith("_qweight"):
            part = call.checkpoint_name.split(".")[-2].removesuffix("_proj")
            one = stored[f"blk.0.ffn_{part}_exps.weight"]
            dim, rows = cuts[call.checkpoint_name]
            assert dim == 0
            values = gguf.dequantize(one.data[call.expert_id][rows], one.tensor_type)
            fused = "w2" if call.shard_id == "'w2'" else "w13"
            made[fused].setdefault(call.expert_id, []).append((call.shard_id, torch.from_numpy(values)))
    for fused, of_expert in made.items():
        whole = [torch.cat([v for _, v in sorted(of_expert[e], key=lambda pair: pair[0])]) for e in sorted(of_expert)]
        stacked = torch.stack(whole).to(torch.float16)
        told = experts.told["processed"][f"{layer}.{fused}_dequant"]
        assert told in {digest(stacked), digest(stacked.transpose(1, 2))}  # 0.5.11 keeps them transposed


def digest(tensor):
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
