"""vLLM, unmodified and in an environment of its own: what is recorded, that it changes nothing, and what is found."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file

from sessions.decisions import decisions
from sessions.parameters import parameters

pytestmark = pytest.mark.engine
GENERATES = (
    "Qwen3ForCausalLM/bf16", "Qwen3MoeForCausalLM/bf16", "Qwen3NextForCausalLM/bf16",
    "Qwen3_5ForConditionalGeneration/bf16", "Qwen3ForCausalLM/w8a8", "Qwen3_5ForConditionalGeneration/w8a8",
    "Qwen3ForCausalLM/w4a16", "Qwen3ForCausalLM/fp8", "Qwen3ForCausalLM/fp8-blocks",
    "Qwen3_5ForConditionalGeneration/fp8-blocks", "Qwen3ForCausalLM/nvfp4",
)  # fmt: skip
LOADS_ONLY = (
    "Qwen3MoeForCausalLM/w8a8", "Qwen3MoeForCausalLM/fp8", "Qwen3MoeForCausalLM/nvfp4",
    "Qwen3NextForCausalLM/fp8-blocks",
)  # fmt: skip
HAS_BLOCKS_OF_ONE_RANK = {("Qwen3_5ForConditionalGeneration/fp8-blocks", 2)}
"""The tiny vision part has 64 columns, in blocks of 128: vLLM divides them by ranks and refuses."""
LOADS = [
    (checkpoint, tp)
    for tp in (1, 2)
    for checkpoint in (*GENERATES, *LOADS_ONLY)
    if (checkpoint, tp) not in HAS_BLOCKS_OF_ONE_RANK
]
of_every_load = pytest.mark.parametrize(("checkpoint", "tp"), LOADS, ids=[f"{name} tp {tp}" for name, tp in LOADS])
QUANTIZED = "Qwen3ForCausalLM/w8a8"


def test_every_tracepoint_is_found_in_the_sources_of_the_installed_version(vllm_python, loadscope_command):
    done = loadscope_command("doctor", "--engine", "vllm", "--json", "--python", vllm_python)
    told = json.loads(done.stdout)
    assert (done.returncode, told["outcome"], told["engine_version"]) == (0, "ok", "0.32.0")
    assert len(told["tracepoints"]) > 40
    assert all(one["places"] and not one["lacks"] for one in told["tracepoints"] if one["is_expected"])


@of_every_load
def test_calls_and_filled_elements_are_those_that_were_counted_without_the_probe(
    trace_vllm, untraced_vllm, vllm_checkpoint, checkpoint, tp
):
    traced = trace_vllm(vllm_checkpoint(checkpoint), tp=tp)
    calls, views = traced.of("loader.called"), parameters(traced.session)
    for rank, without in untraced_vllm(vllm_checkpoint(checkpoint), tp).told.items():
        mine = [call.body for call in calls if call.rank == rank]
        assert Counter(body.loader.rpartition(".")[2] for body in mine) == without["counted"]
        filled = {v.name: v.elements - v.coverage.never_written for v in views if v.rank == rank}
        assert filled == without["filled"]
    assert {call.body.outcome for call in calls} == {"returned"}
    assert all(call.body.parameter and call.body.checkpoint_name for call in calls)
    assert traced.of("tracepoint.missing") == traced.of("inspector.faulted") == traced.of("write.suspected") == []


@of_every_load
def test_parameters_and_tokens_are_the_same_with_and_without_the_probe(
    trace_vllm, untraced_vllm, vllm_checkpoint, checkpoint, tp
):
    traced, without = trace_vllm(vllm_checkpoint(checkpoint), tp=tp), untraced_vllm(vllm_checkpoint(checkpoint), tp)
    assert set(traced.told) == set(without.told) == set(range(tp))
    for rank, told in traced.told.items():
        assert len(told["loaded"]) > 20
        for what in ("loaded", "processed", "tokens"):
            assert told[what] == without.told[rank][what]
        assert len(told["tokens"]) == (0 if checkpoint in LOADS_ONLY else 4)


@of_every_load
def test_every_byte_came_from_where_the_ledger_says_by_loads_without_the_probe(
    trace_vllm, untraced_vllm, vllm_checkpoint, ghosts, checkpoint, tp
):
    folder = vllm_checkpoint(checkpoint)
    for rank in range(tp):
        said = ghosts.of(trace_vllm(folder, tp=tp), untraced_vllm(folder, tp), folder, rank)
        assert (said.wrong, said.unknown) == ({}, {})
        assert said.exact > 500_000


def test_a_ledger_that_is_off_by_one_row_is_found_out(trace_vllm, untraced_vllm, vllm_checkpoint, ghosts):
    folder = vllm_checkpoint(QUANTIZED)
    traced = trace_vllm(folder, tp=2)
    writes = ghosts.writes(traced, 1)
    victim = next(one for one in writes if one["length"][:1] == [128] and one["source_offset"] > 0)
    shifted = [{**one, "source_offset": 0} if one is victim else one for one in writes]
    said = ghosts.of(traced, untraced_vllm(folder, 2), folder, 1, shifted)
    assert list(said.wrong) == [f"1/{victim['parameter']}"]


def check_values(traced, checkpoint, rank):
    """The parameters of a rank as loaded, rebuilt from the checkpoint's files by what the ledger says; how many."""
    on_disk = {}
    for file in checkpoint.glob("*.safetensors"):
        on_disk.update(load_file(file))
    held, wrong, compared = torch.load(f"{traced.kept}.{rank}"), [], 0
    for view in (view for view in parameters(traced.session) if view.rank == rank and view.writes):
        real = held[view.name]
        rebuilt = torch.full_like(real, 99)
        for write in view.writes:
            source = on_disk[write.checkpoint_name].reshape(-1)
            assert write.source_strides or write.elements == 1, (view.name, write)
            taken = source.as_strided(write.length, write.source_strides, max(write.source_offset, 0))
            place = tuple(slice(a, a + n) for a, n in zip(write.start, write.length, strict=True))
            rebuilt[place] = taken.to(real.dtype)
        compared += 1
        if not torch.equal(rebuilt.reshape(-1).view(torch.uint8), real.reshape(-1).view(torch.uint8)):
            wrong.append(view.name)
    assert wrong == []
    return compared


@of_every_load
def test_the_ledger_rebuilds_the_parameters_from_the_checkpoint(trace_vllm, vllm_checkpoint, checkpoint, tp):
    folder = vllm_checkpoint(checkpoint)
    for rank in range(tp):
        assert check_values(trace_vllm(folder, tp=tp), folder, rank) > 20


@of_every_load
def test_a_sound_load_has_no_findings_and_every_tensor_is_read_once(trace_vllm, vllm_checkpoint, checkpoint, tp):
    traced = trace_vllm(vllm_checkpoint(checkpoint), tp=tp)
    assert (traced.code, traced.verdict["outcome"], traced.verdict["findings"]) == (0, "ok", [])
    listed = {event.body.checkpoint_name for event in traced.of("tensor.listed")}
    for stream in range(tp):
        read = Counter(event.body.checkpoint_name for event in traced.of("tensor.read") if event.stream == stream)
        assert read == dict.fromkeys(listed, 1)
        assert {event.body.checkpoint_name for event in traced.of("loader.called") if event.stream == stream} == listed


def test_two_ranks_in_two_processes_become_one_session(trace_vllm, vllm_checkpoint):
    checkpoint = vllm_checkpoint("Qwen3MoeForCausalLM/bf16")
    one, two = trace_vllm(checkpoint), trace_vllm(checkpoint, tp=2)
    assert (two.code, two.verdict["findings"], len(two.session.streams)) == (0, [], 2)
    by_rank = Counter(call.rank for call in two.of("loader.called"))
    assert set(by_rank) == {0, 1}
    assert by_rank[0] == by_rank[1] == len(one.of("loader.called"))
    assert two.told[0]["tokens"] == two.told[1]["tokens"]


def test_decisions_name_the_parts_and_the_kernel_with_the_reasons_against_others(trace_vllm, vllm_checkpoint):
    views = {view.module: view for view in decisions(trace_vllm(vllm_checkpoint(QUANTIZED)).session)}
    fused = views["model.layers.0.self_attn.qkv_proj"]
    assert [name.rpartition(".")[2] for name in fused.tried] == ["q_proj", "k_proj", "v_proj"]
    assert (fused.expansion_source, fused.is_skipped, fused.built) == ("model", False, "int8")
    (kernel,) = fused.kernels
    assert (kernel.op, kernel.kernel) == ("int8_w8a8", "CPUInt8ScaledMMLinearKernel")
    assert [reason.partition(":")[0] for reason in kernel.refused] == ["ZentorchInt8ScaledMMLinearKernel"]
    head = views["lm_head"]
    assert (head.is_skipped, head.matched, head.built) == (True, "lm_head", "as is")
    assert views["model.embed_tokens"].method == "UnquantizedEmbeddingMethod"
    assert not [view.module for view in views.values() if view.is_contradiction]


def test_the_experts_kernel_is_known_by_its_layer(trace_vllm, vllm_checkpoint):
    chosen = [event.body for event in trace_vllm(vllm_checkpoint("Qwen3MoeForCausalLM/bf16")).of("kernel.chosen")]
    assert [one.module for one in chosen] == [f"model.layers.{layer}.mlp.experts" for layer in range(3)]
    assert {(one.op, one.kernel) for one in chosen} == {("unquantized_moe", "CPU (CPUUnquantizedExperts)")}


def test_launches_of_vllm_s_own_operators_are_seen_in_the_pass(trace_vllm, vllm_checkpoint):
    names = {event.body.name for event in trace_vllm(vllm_checkpoint(QUANTIZED)).of("kernel.launched")}
    own = {"_C::onednn_scaled_mm", "_C::dynamic_scaled_int8_quant", "vllm::unified_attention_with_output"}
    assert {"CompressedTensorsLinearMethod.apply", *own} <= names


def test_a_failing_load_names_the_call_with_parameter_tensor_shard_rank_shapes_and_place(trace_vllm, cut_checkpoint):
    traced = trace_vllm(cut_checkpoint)
    assert traced.code == 4
    (call,) = [call for call in traced.of("loader.called") if call.body.outcome == "raised"]
    body = call.body
    assert body.parameter == "model.layers.1.self_attn.qkv_proj.weight"
    assert body.checkpoint_name == "model.layers.1.self_attn.k_proj.weight"
    assert (body.shard_id, call.rank, body.tensor_shape, body.parameter_shape) == ("'k'", 0, (192, 256), (1024, 256))
    assert body.loader.endswith("QKVParallelLinear.weight_loader_v2")
    assert "layers/linear.py:" in body.where
    root = traced.verdict["findings"][0]
    assert (root["parameter"], root["tensor"], root["rank"]) == (body.parameter, body.checkpoint_name, 0)
