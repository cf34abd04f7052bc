"""SGLang, unmodified and in environments of its own: what is recorded, that it changes nothing, and what is found."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file

from sessions.decisions import decisions
from sessions.parameters import parameters
from sessions.session import Session

VERSIONS = ("0.5.10", "0.5.11", "0.5.23")
pytestmark = pytest.mark.engine


def first(traced):
    assert traced.verdict["findings"], traced.verdict
    return traced.verdict["findings"][0]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_tracepoint_of_an_installed_version_is_found_in_its_sources(engine_python, version):
    command = [
        "-c",
        "from workbench.cli import main; raise SystemExit(main())",
        "doctor",
        "--engine",
        "sglang",
        "--json",
    ]
    python = str(engine_python(f"sglang-{version}"))
    done = subprocess.run([sys.executable, *command, "--python", python], capture_output=True, text=True, check=False)
    told = json.loads(done.stdout)
    assert (done.returncode, told["outcome"], told["engine_version"]) == (0, "ok", version)
    assert all(one["places"] for one in told["tracepoints"] if one["is_expected"])
    assert not any(one["places"] for one in told["tracepoints"] if not one["is_expected"])


@pytest.mark.parametrize("version", VERSIONS)
def test_every_tensor_of_the_checkpoint_is_read_once_and_goes_to_one_call(trace, version):
    traced = trace(version, "fp8_block")
    listed = {event.body.checkpoint_name for event in traced.of("tensor.listed")}
    for kind in ("tensor.read", "loader.called"):
        assert Counter(event.body.checkpoint_name for event in traced.of(kind)) == dict.fromkeys(listed, 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_sound_load_has_no_findings(trace, version):
    traced = trace(version, "fp8_block")
    assert (traced.code, traced.verdict["outcome"], traced.verdict["findings"]) == (0, "ok", [])
    assert traced.verdict["engine_version"] == version


@pytest.mark.parametrize("version", VERSIONS)
def test_decisions_know_the_list_what_was_compared_and_what_was_built(trace, version):
    views = {view.module: view for view in decisions(trace(version, "fp8_block").session)}
    skipped = views["model.layers.0.linear_attn.in_proj_ba"]
    assert (skipped.is_skipped, skipped.matched, skipped.built) == (True, skipped.module, "as is")
    fused = views["model.layers.0.mlp.shared_expert.gate_up_proj"]
    assert [name.rpartition(".")[2] for name in fused.tried] == ["gate_proj", "up_proj"]
    assert (fused.expansion_source, fused.built, fused.header_dtype) == ("model", "float8_e4m3fn", "float8_e4m3fn")
    assert not [view.module for view in views.values() if view.is_contradiction]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_kernel_of_a_quantized_layer_is_known_and_which_switches_rule_others_out(trace, version):
    traced = trace(version, "fp8_block")
    views = {view.module: view for view in decisions(traced.session)}
    (product,) = views["model.layers.0.mlp.shared_expert.gate_up_proj"].kernels
    assert (product.op, product.kernel) == ("w8a8_block_fp8_linear", "triton_w8a8_block_fp8_linear")
    assert [reason.rpartition(": ")[2] for reason in product.refused] == [
        "ENABLE_JIT_DEEPGEMM is False", "_use_aiter is False",
    ]  # fmt: skip
    assert [str(one) for one in views["model.layers.0.mlp.experts"].kernels] == ["moe_runner: triton"]
    chosen = {view.module for view in views.values() if view.kernels}
    assert chosen == {view.module for view in views.values() if view.built == "float8_e4m3fn"}
    assert all(event.body.module for event in traced.of("kernel.chosen"))


def test_a_scale_that_takes_other_rows_than_its_weight_is_named(trace, checkpoints):
    traced = trace("0.5.10", "packed_int8")
    found = {one["module"]: one for one in traced.verdict["findings"]}
    assert {one["class"] for one in found.values()} == {"loader/asymmetry"}
    one = found["model.layers.0.linear_attn.in_proj_ba"]
    assert (one["parameter"], one["rank"], one["seen"]) == (f"{one['module']}.weight_scale", 1, 2)
    assert "rows 4–7" in one["sentence"]
    assert "MergedColumnParallelLinear.weight_loader" in one["sentence"]
    # The rows that the ledger names are those whose scales the parameter really holds: the scale of row r is r + 1.
    on_disk = load_file(checkpoints("packed_int8") / "model.safetensors")[one["parameter"]]
    (view,) = (v for v in parameters(traced.session) if v.name == one["parameter"])
    rebuilt = torch.zeros(view.shape)
    for write in view.writes:
        (at, _), (rows, _), (begin, _) = write.start, write.length, write.source_start
        rebuilt[at : at + rows] = on_disk[begin : begin + rows]
    assert torch.equal(rebuilt, torch.load(traced.kept)[one["parameter"]])
    assert not torch.equal(rebuilt, on_disk[4:8])


@pytest.mark.parametrize("version", ["0.5.11", "0.5.23"])
def test_scales_that_follow_their_weights_give_no_finding(trace, version):
    traced = trace(version, "packed_int8")
    assert (traced.code, traced.verdict["findings"]) == (0, [])


def test_a_scale_of_one_element_that_is_split_is_named_with_call_shard_id_and_shapes(trace):
    traced = trace("0.5.10", "separate_fp8")
    root = first(traced)
    assert traced.code == 4
    assert root["class"] == "scale/split"
    assert root["parameter"] == "model.layers.0.linear_attn.in_proj_qkvz.weight_scale"
    assert root["tensor"] == "model.language_model.layers.0.linear_attn.in_proj_qkv.weight_scale"
    assert root["rank"] == 1
    assert "split_with_sizes expects split_sizes to sum exactly to 1" in root["sentence"]
    (call,) = (call.body for call in traced.of("loader.called") if call.body.outcome == "raised")
    assert (call.shard_id, call.tensor_shape, call.parameter_shape) == ("(0, 1, 2)", (1,), (4,))


def test_the_same_checkpoint_loads_after_the_repair(trace):
    traced = trace("0.5.11", "separate_fp8")
    assert [one["class"] for one in traced.verdict["findings"] if one["severity"] == "error"] == []
    assert traced.verdict["counts"]["weight_loader_calls"] == traced.verdict["counts"]["checkpoint_tensors"]
    # A model of images was built, and the checkpoint has nothing for it.
    (warning,) = traced.verdict["findings"]
    assert (warning["class"], warning["severity"]) == ("parameter/never-filled", "warning")
    assert warning["title"].endswith("of visual")


def test_modules_that_are_built_under_another_name_are_still_told_apart(trace):
    views = {view.module: view for view in decisions(trace("0.5.11", "separate_fp8").session)}
    at = "model.language_model.layers.0.linear_attn"
    assert {
        view.name for view in parameters(trace("0.5.11", "separate_fp8").session) if view.name.startswith(at)
    } == set()
    assert (views[f"{at}.in_proj_qkvz"].built, views[f"{at}.in_proj_ba"].built) == ("float8_e4m3fn", "as is")


@pytest.mark.parametrize("version", ["0.5.11", "0.5.23"])
def test_a_fused_name_in_the_fallback_table_is_the_root_and_the_division_follows(trace, version):
    traced = trace(version, "fp8_block", before=("fused_fallback.py",))
    root = first(traced)
    assert traced.code == 4
    assert (root["class"], root["module"]) == ("skip-decision/fused-name", "model.layers.0.linear_attn.in_proj_ba")
    followed = {one["id"]: one for one in traced.verdict["findings"]}[root["explains"][0]]
    assert followed["class"] == "shard/divisibility"
    assert "Weight output_partition_size = 8 is not divisible by weight quantization block_n = 128" in traced.log


def test_all_ranks_become_one_session(trace):
    traced = trace("0.5.11", "packed_int8", tp=2, rank="all")
    assert (traced.code, len(traced.session.streams)) == (0, 2)
    by_rank = Counter(call.rank for call in traced.of("loader.called"))
    assert set(by_rank) == {0, 1}
    assert by_rank[0] == by_rank[1] == traced.verdict["counts"]["checkpoint_tensors"]


def test_a_python_without_the_engine_is_refused_before_anything_runs(checkpoints):
    command = ["-c", "from workbench.cli import main; raise SystemExit(main())", "trace"]
    asked = [str(checkpoints("packed_int8")), "--engine", "sglang", "--python", sys.executable]
    done = subprocess.run([sys.executable, *command, *asked], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{sys.executable} has no sglang" in done.stderr


def test_a_load_is_held_at_a_breakpoint_and_shows_the_values_at_hand(start_trace):
    with start_trace(
        "0.5.10", "packed_int8", "--break", 'parameter ~ "*layers.0.linear_attn.in_proj_ba.weight_scale"'
    ) as held:
        state = held.wait_until_paused()
        assert (state["why"], state["ok"]) == ("breakpoint 1", True)
        source = held.control.inspect("source", rows=16, columns=1)
        assert source["window"] == [[float(row + 1)] for row in range(16)]
        parameter = held.control.inspect("parameter", rows=4, columns=1)
        assert parameter["name"] == "model.layers.0.linear_attn.in_proj_ba.weight_scale"
        # Rank 1 of 4 should hold the scales of rows 4 to 7.
        assert parameter["window"] == [[3.0], [4.0], [11.0], [12.0]]
        held.control.release()
    assert held.code == 1
    assert "rank 1 of 4: Qwen3NextForCausalLM is loaded" in held.log()


def test_two_ranks_are_held_at_the_same_call_and_each_shows_its_own_values(step_ranks, checkpoints, engine_python):
    place = "model.layers.0.linear_attn.in_proj_ba.weight_scale"
    with step_ranks(checkpoints("packed_int8"), "sglang", engine_python("sglang-0.5.11")) as held:
        held.settle()
        held.together.breakpoints([f'parameter ~ "{place}" and rank = 1'])
        first, second = held.step("breakpoint")
        assert first == second
        assert (first["parameter"], first["occurrence"]) == (place, 1)
        windows = []
        for rank in (0, 1):
            assert held.together.show(rank)
            assert held.together.inspect("source", rows=16)["window"][5] == [6.0]
            windows.append(held.together.inspect("parameter", rows=8)["window"])
        # 2 ranks: the scales of the rows of b and of a that each of them has; row r has the scale r + 1.
        assert windows[0] != windows[1]
        for _ in range(3):
            after, same = held.step("next")
            assert after == same != first
        assert [place.number for place in held.together.ranks()] == [held.together.state()["number"]] * 2
        held.together.release()
    assert held.code == 0
    session = Session.open(held.folder)
    by_rank = Counter(call.rank for call in session.of_kinds("loader.called"))
    session.close()
    assert by_rank[0] == by_rank[1] > 50
