"""GGUF files with vLLM's plugin for them, which has a loader, parameters and methods of its own."""

from __future__ import annotations

from collections import Counter

import pytest

pytestmark = pytest.mark.engine
of_every_load = pytest.mark.parametrize(
    ("checkpoint", "tp"), [("Qwen3ForCausalLM/gguf", 1), ("Qwen3ForCausalLM/gguf", 2)]
)


def filled(told):
    """Digests of the parameters as processed, but the types of fused ones: the plugin never fills that memory."""
    unset = ("qkv_proj.qweight_type", "gate_up_proj.qweight_type")
    return {name: digest for name, digest in told["processed"].items() if not name.endswith(unset)}


@of_every_load
def test_a_gguf_file_is_recorded_whole_and_left_as_it_is(trace_vllm, untraced_vllm, vllm_checkpoint, checkpoint, tp):
    file = vllm_checkpoint(checkpoint)
    traced, without = trace_vllm(file, tp=tp), untraced_vllm(file, tp)
    calls = traced.of("loader.called")
    for rank, told in without.told.items():
        names = [call.body.loader.rpartition(".")[2] for call in calls if call.rank == rank]
        assert Counter(names) == told["counted"]
        assert traced.told[rank]["tokens"] == told["tokens"]
        assert filled(traced.told[rank]) == filled(told)
        assert (len(filled(told)) > 20, len(told["tokens"])) == (True, 4)
    assert {call.body.outcome for call in calls} == {"returned"}
    assert all(call.body.parameter and call.body.checkpoint_name for call in calls)
    assert traced.of("tracepoint.missing") == traced.of("inspector.faulted") == []
    assert (traced.code, traced.verdict["findings"]) == (0, [])


@of_every_load
def test_types_come_before_blocks_and_decisions_name_the_parts(trace_vllm, vllm_checkpoint, checkpoint, tp):
    traced = trace_vllm(vllm_checkpoint(checkpoint), tp=tp)
    read = [event.body.checkpoint_name for event in traced.of("tensor.read") if event.stream == 0]
    blocks = [n for n, name in enumerate(read) if name.endswith(".qweight")]
    assert len(blocks) > 10
    assert all(read[n - 1] == f"{read[n]}_type" for n in blocks)
    called = [call.body for call in traced.of("loader.called") if call.body.parameter.endswith("o_proj.qweight")]
    assert {body.parameter_dtype for body in called} == {"uint8"}
    methods = {event.body.module: event.body.method for event in traced.of("method.selected")}
    assert methods["model.layers.0.self_attn.qkv_proj"] == "GGUFLinearMethod"
    skips = {event.body.module: event.body for event in traced.of("skip.decided")}
    tried = skips["model.layers.0.self_attn.qkv_proj"].tried
    assert [name.rpartition(".")[2] for name in tried] == ["q_proj", "k_proj", "v_proj"]


def test_a_mixture_of_experts_that_the_plugin_refuses_is_told_with_its_words(trace_vllm, vllm_checkpoint):
    traced = trace_vllm(vllm_checkpoint("Qwen3MoeForCausalLM/gguf"))
    (failure,) = [event.body for event in traced.of("stage.failed")]
    assert (traced.code, failure.failed_stage) == (4, "checkpoint.open")
    assert failure.frames[0].endswith("GGUFWeightsAdapter.build_name_map")
    assert "Failed to map GGUF parameters (3)" in traced.verdict["findings"][0]["sentence"]
