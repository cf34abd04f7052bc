"""Each planted defect, loaded for real: what is found, what follows from it, and that the repaired load is clean."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sessions.checkpoint import header
from sessions.parameters import parameters
from workbench import plugins
from workbench.scenario import scenario_named

SCENARIOS_WITH_TESTS_OF_THEIR_OWN = {
    "clean-load", "fp8-skip",
    "unwritten-slot", "double-write", "swapped-halves", "dropped-scale", "rank-offset", "left-twice",
}  # fmt: skip
PLANTED = sorted(set(plugins.names(plugins.SCENARIOS)) - SCENARIOS_WITH_TESTS_OF_THEIR_OWN)
LINEAR = "layers.0.linear_attn"


def runs() -> ModuleType:
    name = "loadscope_tests_scenario_runs"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("scenario_runs.py"))
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, variables: dict[str, str]) -> Iterator[Callable[..., Any]]:
    """Runs a scenario once for all tests."""
    known: dict[tuple[str, bool], Any] = {}
    folder = tmp_path_factory.mktemp("scenarios")

    def judge(name: str, *, is_repaired: bool = False) -> Any:
        key = name, is_repaired
        if key not in known:
            own = folder / f"{name}{'-repaired' if is_repaired else ''}"
            with pytest.MonkeyPatch.context() as patch:
                for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
                    patch.setenv(variable, variables[variable])
                known[key] = runs().run(name, own, variables, is_repaired=is_repaired)
        return known[key]

    yield judge
    for one in known.values():
        one.session.close()


@pytest.mark.parametrize("name", PLANTED)
def test_the_root_cause_is_the_one_the_scenario_expects(judged, name):
    defect = judged(name)
    assert defect.root.class_ == scenario_named(name).expects
    assert set(defect.roots) == {defect.root.class_}
    assert defect.root.evidence
    assert defect.root.remedy
    assert defect.root.steps


@pytest.mark.parametrize("name", PLANTED)
def test_the_repaired_load_ends_well_and_has_no_finding(judged, name):
    repaired = judged(name, is_repaired=True)
    assert (repaired.state, repaired.found) == ("ok", ()), repaired.log[-2000:]
    assert repaired.session.count("forward.ran") > 0


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_host_is_recorded_as_the_engine_it_is(judged, name):
    defect, repaired = judged(name).session, judged(name, is_repaired=True).session
    assert (defect.manifest.engine, defect.manifest.engines) == (repaired.manifest.engine, repaired.manifest.engines)
    assert {e.body.engine for e in defect.of_kinds("engine.found")} == {repaired.manifest.engine}
    assert (defect.manifest.scenario, repaired.manifest.scenario) == (name, None)
    assert defect.count("tracepoint.missing") == repaired.count("tracepoint.missing") == 0


def test_scales_cut_by_another_loader_than_their_weight_are_found_in_a_silent_load(judged):
    defect = judged("int8-packed-scale")
    assert defect.state == "ok"
    assert [one.class_ for one in defect.found] == ["loader/asymmetry"] * 2
    found = {one.module.rpartition(".")[2]: one for one in defect.found}
    assert found.keys() == {"in_proj_qkvz", "in_proj_ba"}
    one = found["in_proj_qkvz"]
    assert one.parameter == f"model.{LINEAR}.in_proj_qkvz.weight_scale"
    assert one.title == "in_proj_qkvz: scales of other rows"
    assert "weight_scale and weight_offset" in one.sentence
    # 4 key heads of 32, 8 value heads of 32, 4 ranks: rank 0 takes a quarter of q, of k, of v and of z
    assert "rows 0–191 of the weight" in one.sentence
    assert "0–31, 128–159, 256–319, 512–575 of 768" in one.sentence
    assert "32 of 192" in one.sentence
    assert "load_slice" in one.sentence
    assert "FusedColumnLinear.weight_loader" in one.sentence


def test_only_the_scales_differ_from_the_repaired_load(judged):
    defect, repaired = (parameters(judged("int8-packed-scale", is_repaired=flag).session) for flag in (False, True))
    places = [
        {(v.name, v.rank): [w.source_start for w in v.writes] for v in views if ".in_proj_" in v.name}
        for views in (defect, repaired)
    ]
    different = {
        name.rpartition(".")[2] for (name, rank), starts in places[0].items() if places[1][name, rank] != starts
    }
    assert different == {"weight_scale", "weight_offset"}


def test_a_scale_of_one_element_that_was_split_explains_the_exception(judged):
    defect = judged("fp8-scale-split")
    assert defect.state == "failed"
    root = defect.root
    assert root.parameter.endswith(f"{LINEAR}.in_proj_qkvz.weight_scale")
    assert root.tensor.endswith(f"{LINEAR}.in_proj_qkv.weight_scale")
    assert "split_with_sizes expects split_sizes to sum exactly to 1" in root.sentence
    assert "float32 [1]" in root.sentence
    assert "(0, 1, 2)" in root.sentence
    assert "[4]" in root.sentence
    assert defect.follow_ons(root) == ["host/failed"]
    assert [one.class_ for one in defect.found if not one.root] == ["host/failed", "parameter/never-filled"]
    assert "split_with_sizes expects split_sizes to sum exactly to 1" in defect.log


def test_modules_the_list_names_by_their_parts_are_found_in_a_silent_load(judged):
    defect = judged("nvfp4-unmapped")
    assert defect.state == "ok"
    found = {one.module.rpartition(".")[2]: one for one in defect.found}
    assert found.keys() == {"in_proj_qkvz", "in_proj_ba"}
    one = found["in_proj_qkvz"]
    assert "names in_proj_qkv and in_proj_z" in one.sentence
    assert "bfloat16 without a scale" in one.sentence
    assert "nvfp4" in one.sentence
    assert "packed_modules_mapping the entry in_proj_qkvz -> in_proj_qkv, in_proj_z" in one.remedy
    assert one.seen == 2 * 2  # layers × ranks


def types_on_disk(model: str) -> dict[str, str]:
    """The type of each tensor by the format's own library."""
    import gguf

    (file,) = Path(model).glob("*.gguf")
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors}


@pytest.mark.parametrize("name", ["gguf-stream-order", "gguf-expert-part"])
def test_a_gguf_load_is_recorded_with_its_types_and_dequantized_on_a_device_without_blocks(judged, name):
    session = judged(name, is_repaired=True).session
    types = types_on_disk(session.manifest.model)
    assert {listed.checkpoint_name: listed.dtype for listed in header(session).values()} == types
    assert {"Q4_K", "Q6_K", "F32"} <= set(types.values())
    assert session.manifest.device == "simulated-npu"
    assert "simulated" in judged(name, is_repaired=True).log
    launched = {event.body.name for event in session.of_kinds("kernel.launched")}
    assert not any("gguf" in kernel for kernel in launched)  # all blocks became weights after the load
    assert session.count("weights.processed") > 0


def test_mixed_types_inside_one_fused_parameter_are_each_written_once_from_their_own_tensor(judged):
    session = judged("gguf-stream-order", is_repaired=True).session
    types = types_on_disk(session.manifest.model)
    views = [v for v in parameters(session) if v.name == "model.layers.0.self_attn.qkv_proj.qweight"]
    assert [v.rank for v in views] == [0, 1]
    for view in views:
        sources = {write.shard_id.strip("'"): write.checkpoint_name for write in view.writes}
        assert sources == {part: f"blk.0.attn_{part}.weight" for part in "qkv"}
        assert {types[source] for source in sources.values()} == {"Q4_K", "Q6_K"}
        assert (view.coverage.never_written, view.coverage.written_twice) == (0, 0)
        # 256, 128 and 128 rows over two ranks; a block of 256 takes 144 bytes in Q4_K and 210 in Q6_K
        assert view.elements == 128 * 144 + 64 * 144 + 64 * 210


def test_parts_laid_out_as_they_come_are_found_in_a_silent_load(judged):
    defect = judged("gguf-stream-order")
    assert defect.state == "ok"
    (one,) = defect.found
    assert (one.parameter, one.seen) == ("model.layers.0.self_attn.qkv_proj.qweight", 2 * 2)  # layers × ranks
    assert one.title == "qkv_proj: k lies before q"
    assert "k was written to [0–9,215] and q to [9,216–27,647]" in one.sentence
    assert "in the order in which the checkpoint has them" in one.sentence


def test_the_part_of_an_expert_in_the_place_of_another_explains_both_the_gap_and_the_overlap(judged):
    defect = judged("gguf-expert-part")
    assert defect.state == "ok"
    root = defect.root
    assert root.parameter == "model.layers.0.mlp.experts.w13_qweight"
    assert root.title == "expert 3: w3 lies where w1 belongs"
    assert "ffn_up_exps.weight" in root.sentence
    assert f"{128 * 144:,} of {4 * 256 * 144:,} elements were never written" in root.sentence
    assert sorted(defect.follow_ons(root)) == ["parameter/never-filled", "parameter/written-twice"]


def test_a_grid_over_the_limit_of_a_device_names_the_first_prompt_that_fails(judged):
    defect = judged("int8-grid-limit")
    assert defect.state == "failed"
    root = defect.root
    assert root.title == "split_kernel: grid 65,536 over 65,535"
    assert "1,024 × 64 = 65,536 programs at a prefill of 1,024 tokens" in root.sentence
    assert "it fails from 1,024 tokens on" in root.sentence
    assert defect.follow_ons(root) == ["host/failed"]
    assert "simulated" in defect.log
