"""The verdict on recorded loads: what is found, what explains what, and that a clean load is clean."""

import importlib.util
import sys
from pathlib import Path

import pytest

from inspectors.probe.events import (
    CheckpointOpened,
    ForwardRan,
    InspectorFaulted,
    KernelLaunched,
    LoaderCalled,
    MethodSelected,
    ModelLoaded,
    ParameterRegistered,
    SkipDecided,
    StageFailed,
    TensorListed,
    WeightsProcessed,
    WeightWritten,
)
from inspectors.probe.recorder import Recorder
from sessions.manifest import Manifest, Outcome
from sessions.session import Session
from workbench.diagnosis.verdict import findings

OUT = "model.layers.0.linear_attn.out_proj"


def _recordings():
    name = "loadscope_tests_recordings"
    if name not in sys.modules:
        path = Path(__file__).parents[1] / "sessions" / "recordings.py"
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture
def judged(tmp_path):
    """Findings of a recorded load with the given defects."""
    opened = []

    def judge(**defects):
        recordings = _recordings()
        opened.append(Session.open(recordings.write_session(tmp_path, recordings.Plan(**defects))))
        return findings(opened[-1])

    yield judge
    for session in opened:
        session.close()


@pytest.mark.parametrize("level", ["calls", "ledger"])
def test_a_clean_load_has_no_findings(judged, level):
    assert judged(level=level) == ()


def test_the_hidden_list_entry_is_the_root_and_the_divisibility_error_follows_from_it(judged):
    root, follow_on, second = judged(uses_wrong_fallback=True)
    assert (root.id, root.class_, root.severity) == ("F1", "skip-decision/fused-name", "error")
    assert root.module == "model.layers.0.linear_attn.in_proj_ba"
    assert (root.root, root.explains) == (True, ("F2",))
    assert (follow_on.id, follow_on.class_, follow_on.root) == ("F2", "shard/divisibility", False)
    assert follow_on.module == root.module
    assert (second.module, second.root, second.explains) == ("model.layers.0.linear_attn.in_proj_qkvz", True, ())


def test_the_root_names_expansion_entry_and_header(judged):
    root = judged(uses_wrong_fallback=True)[0]
    assert "in_proj_ba -> in_proj_b, in_proj_a" in root.sentence
    assert "fallback table" in root.sentence
    assert "entry 1" in root.sentence
    assert "never tried" in root.sentence
    assert "bfloat16 with no companion scale" in root.sentence
    assert "qkv_proj and gate_up_proj" in root.remedy
    assert [what for what, _, _ in root.steps] == ["config", "decision", "create", "host"]


def test_evidence_leads_to_the_events_it_speaks_of(judged, tmp_path):
    root = judged(uses_wrong_fallback=True)[0]
    with_event = [one for one in root.evidence if one.position is not None]
    session = Session.open(tmp_path)
    kinds = [session.event(one.position).kind for one in with_event]
    assert kinds == ["skip.decided", "tensor.listed", "stage.failed"]
    assert all(session.find(one.ref).position == one.position for one in with_event)
    assert all(getattr(session.event(one.position).body, "module", root.module) == root.module for one in with_event)
    session.close()


def test_findings_print_as_the_stable_object(judged):
    told = judged(uses_wrong_fallback=True)[0].as_json()
    wanted = {"id", "severity", "class", "title", "module", "parameter", "tensor", "rank", "root", "explains"}
    assert wanted | {"evidence", "remedy"} <= told.keys()
    assert all(isinstance(one, str) for one in told["evidence"])


def test_the_same_finding_on_layers_and_ranks_is_one(judged):
    (found,) = judged(drops_scale=True, layers=5)
    assert (found.class_, found.severity, found.seen) == ("scale/dropped", "error", 5)
    assert len(found.modules) == 5
    assert "weight_scale_inv" in found.title


def test_a_tensor_that_was_left_out_explains_the_parameter_that_is_empty(judged):
    root, follow_on = judged(leaves_out=f"{OUT}.weight")
    assert (root.class_, root.tensor, root.explains) == ("checkpoint/never-used", f"{OUT}.weight", ("F2",))
    assert (follow_on.class_, follow_on.parameter) == ("parameter/never-filled", f"{OUT}.weight")
    assert (follow_on.seen, follow_on.root) == (4, False)


def test_elements_written_twice_name_both_calls(judged):
    (found,) = judged(loads_twice="lm_head.weight")
    assert (found.class_, found.severity, found.parameter) == ("parameter/written-twice", "warning", "lm_head.weight")
    assert "32,768 of 32,768" in found.sentence
    assert len({one.position for one in found.evidence}) == 2


def shapes_written(folder, *parts, dtype="int64", stem="m.qkv_proj.weight", beside="_packed"):
    """A parameter of two elements, which each of `parts` (shard id, module on disk) fills whole, beside its weight."""
    recorder = Recorder(folder)
    recorder.point(ParameterRegistered(f"{stem}{beside}", "Packed", "int32", (96, 8)), rank=0)
    recorder.point(ParameterRegistered(f"{stem}_shape", "Plain", dtype, (2,)), rank=0)
    for shard, module in parts:
        called = LoaderCalled(f"m.{module}.weight_shape", f"{stem}_shape", shard_id=shard, outcome="returned")
        span = recorder.begin(called, rank=0)
        recorder.point(WeightWritten(f"{stem}_shape", (0,), (2,), 2, "", (0,), (2,), "copy_"), rank=0)
        recorder.end(span)
    recorder.close()
    Manifest(level="ledger", outcome=Outcome("ok", 0)).write(folder)
    session = Session.open(folder)
    found = [one.class_ for one in findings(session)]
    session.close()
    return found


def test_the_shapes_of_a_fused_weight_s_parts_may_take_each_other_s_place(tmp_path):
    assert shapes_written(tmp_path, ("'q'", "q_proj"), ("'k'", "k_proj"), ("'v'", "v_proj")) == []


@pytest.mark.parametrize(("parts", "facts"), [
    ((("'q'", "q_proj"), ("'k'", "k_proj"), ("'q'", "q_proj")), {}),  # a part that came twice
    ((("'q'", "q_proj"), ("'q'", "k_proj")), {}),  # two tensors for one part
    ((("'q'", "q_proj"), ("'k'", "k_proj")), {"dtype": "float32"}),
    ((("'q'", "q_proj"), ("'k'", "k_proj")), {"beside": "_scale"}),  # no packed weight that has a shape
])  # fmt: skip
def test_what_only_looks_like_a_shape_of_parts_is_written_twice(tmp_path, parts, facts):
    assert "parameter/written-twice" in shapes_written(tmp_path, *parts, **facts)


@pytest.mark.parametrize(("entry", "is_stale"), [
    ("model.layer.0.mlp", True), ("mlp.gate", True), ("out_pro", True), ("re:.*visual.*", True),
    ("linear_attn.out_proj", False), ("model.layers.1", False), ("re:.*out_proj", False), ("*.conv1d", False),
    ("mtp.fc", False),
])  # fmt: skip
def test_a_list_entry_that_names_nothing_is_a_warning(judged, entry, is_stale):
    found = judged(ignored_extra=(entry,))
    assert [f.class_ for f in found] == (["skip-decision/stale-entry"] if is_stale else [])
    assert not found or entry in found[0].sentence


def test_a_scale_loaded_from_other_rows_than_its_weight_is_an_error(judged):
    found, follow_on = judged(scale_takes_other_rows=True)
    assert (follow_on.class_, follow_on.root) == ("shard/rank-offset", False)  # they are those of another rank
    assert (found.class_, found.severity) == ("loader/asymmetry", "error")
    assert found.parameter == f"{OUT}.weight_scale_inv"
    assert "packed_loader" in found.sentence
    assert "rows 0–255" in found.sentence


def recorded(folder, outcome, *bodies):
    recorder = Recorder(folder)
    for body in bodies:
        recorder.point(body, rank=0)
    recorder.close()
    Manifest(outcome=outcome).write(folder)
    session = Session.open(folder)
    found = findings(session)
    session.close()
    return found


def test_a_failure_that_no_rule_knows_is_told_as_it_is(tmp_path):
    failed = StageFailed(
        "RuntimeError", "split_with_sizes\nmore", "f:1", ("f:1 load",), "m.q", "m.q.scale", "m.q.s", 2, "weight.load"
    )
    (found,) = recorded(tmp_path, Outcome("failed", 1), LoaderCalled(), failed)
    assert (found.class_, found.parameter, found.root) == ("host/failed", "m.q.scale", True)
    assert "split_with_sizes" in found.sentence
    assert [one.ref for one in found.evidence] == ["#3", "#2", ""]


@pytest.mark.parametrize(
    ("outcome", "says"), [(Outcome("killed", None, "SIGKILL"), "SIGKILL"), (Outcome("failed", 9), "exit code 9")]
)
def test_a_host_that_ended_unseen_is_an_error_with_its_last_line(tmp_path, outcome, says):
    (tmp_path / "host.log").write_text("loading\nout of memory\n")
    (found,) = recorded(tmp_path, outcome)
    assert (found.class_, found.severity) == ("host/failed", "error")
    assert says in found.title
    assert "out of memory" in found.sentence


def test_an_inspector_that_ended_is_a_note(tmp_path):
    (found,) = recorded(tmp_path, Outcome("ok", 0), InspectorFaulted("weights", "KeyError('x')", "weights.py:3"))
    assert (found.class_, found.severity) == ("session/blind", "note")
    assert "weights" in found.title


def test_a_stream_that_nobody_closed_follows_from_the_end_of_its_host(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.point(LoaderCalled())
    recorder.flush()
    Manifest(outcome=Outcome("killed", None, "SIGKILL")).write(tmp_path)
    session = Session.open(tmp_path)
    root, follow_on = findings(session)
    assert (root.class_, root.explains) == ("host/failed", ("F2",))
    assert (follow_on.class_, follow_on.severity, follow_on.root) == ("session/incomplete", "note", False)
    session.close()
    recorder.close()


def test_a_host_killed_inside_a_call_is_told_with_that_call(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.begin(LoaderCalled(checkpoint_name="model.q.weight"), rank=0)
    recorder.flush()
    Manifest(outcome=Outcome("killed", None, "SIGKILL")).write(tmp_path)
    session = Session.open(tmp_path)
    assert "inside loader.called (#2, model.q.weight)" in findings(session)[0].sentence
    session.close()
    recorder.close()


@pytest.mark.parametrize(("device", "grid", "tokens", "says"), [
    ("simulated-npu", (96, 512), 96, ("warning", "grid over 65,535 from 128 tokens")),
    ("simulated-npu", (2048, 48), 2048, ("error", "grid 98,304 over 65,535")),
    ("simulated-npu", (48,), 96, None),  # does not grow with the tokens
    ("cpu", (2048, 48), 2048, None),
    ("no such device", (2048, 48), 2048, None),
])  # fmt: skip
def test_a_launch_is_judged_by_the_limits_of_the_device_it_ran_on(tmp_path, device, grid, tokens, says):
    recorder = Recorder(tmp_path)
    forward = recorder.begin(ForwardRan("M", "prefill", tokens), rank=0)
    recorder.point(KernelLaunched(name="split_kernel", launcher="triton", module="m.layers.0", grid=grid), rank=0)
    recorder.end(forward)
    recorder.close()
    Manifest(device=device, outcome=Outcome("ok", 0)).write(tmp_path)
    session = Session.open(tmp_path)
    found = [(one.severity, one.title) for one in findings(session) if one.class_ == "kernel/grid-limit"]
    session.close()
    assert found == ([(says[0], f"split_kernel: {says[1]}")] if says else [])


@pytest.mark.parametrize("message", [
    "kernel split on npu:0: its grid is (4096, 16), and the product 65536 is above ascend's limit of 65535.",
    "rtKernelLaunch failed: coreDim=65536 can't be greater than UINT16_MAX",
])  # fmt: skip
def test_the_words_of_a_refused_launch_become_the_root_of_the_failure(tmp_path, message):
    failed = StageFailed("RuntimeError", message, "f:1", ("f:1 launch",), "", "", "", 2, "forward.run")
    root, follow_on = recorded(tmp_path, Outcome("failed", 1), ForwardRan("M", "prefill", 4096), failed)
    assert (root.class_, root.explains) == ("kernel/grid-limit", ("F2",))
    assert "65,536 over 65,535" in root.title
    assert (follow_on.class_, follow_on.root) == ("host/failed", False)


def scale_of_one_element(**changes):
    facts = {"checkpoint_name": "m.a.weight_scale", "parameter": "m.ab.weight_scale", "parameter_shape": (4,),
             "tensor_dtype": "float32", "tensor_shape": (), "shard_id": "(0, 1, 2)",
             "loader": "weight_loader"}  # fmt: skip
    return LoaderCalled(**(facts | changes))


@pytest.mark.parametrize(("changes", "message", "is_split"), [
    ({}, "split_with_sizes expects split_sizes to sum exactly to 1", True),
    ({"tensor_shape": (1,)}, "start (0) + length (2) exceeds dimension size (1) in narrow", True),
    ({"tensor_shape": (3,)}, "split_with_sizes expects", False),  # one scale for each projection
    ({"shard_id": "0"}, "split_with_sizes expects", False),  # it stands for one projection
    ({"checkpoint_name": "m.a.weight"}, "split_with_sizes expects", False),  # a weight is split
    ({}, "CUDA out of memory", False),
])  # fmt: skip
def test_only_a_single_scale_that_was_cut_is_told_as_such(tmp_path, changes, message, is_split):
    failed = StageFailed("RuntimeError", message, "f:1", (), "m.ab", "m.ab.weight_scale", "", 2, "weight.load")
    found = recorded(tmp_path, Outcome("failed", 1), scale_of_one_element(**changes), failed)
    assert ("scale/split" in [one.class_ for one in found]) is is_split
    assert [one.class_ for one in found if one.root][:1] == ["scale/split" if is_split else "host/failed"]


def silent_load(has_report):
    return (
        ParameterRegistered("visual.proj.weight", "Parameter", "bfloat16", (4, 4), 32),
        ParameterRegistered("visual.norm.weight", "Parameter", "bfloat16", (4,), 8),
        ParameterRegistered("model.layers.0.attn.k_scale", "Parameter", "float32", (1,), 4),
        ParameterRegistered("model.layers.1.mlp.weight", "Parameter", "bfloat16", (4,), 8),
        LoaderCalled(
            checkpoint_name="m", parameter="model.layers.1.mlp.weight", parameter_shape=(4,), outcome="returned"
        ),
        WeightsProcessed(module="model.layers.0.attn"),
        ModelLoaded(4, has_report=has_report),
    )


def test_an_engine_that_does_not_say_what_it_left_alone_gets_one_warning_for_each_part(tmp_path):
    (found,) = recorded(tmp_path, Outcome("ok", 0), *silent_load(has_report=False))
    assert (found.class_, found.severity, found.parameter) == ("parameter/never-filled", "warning", None)
    assert found.title == "no loader call filled 2 parameters of visual"
    assert "visual.proj.weight, visual.norm.weight" in found.sentence


def test_an_engine_that_says_so_is_believed(tmp_path):
    assert recorded(tmp_path, Outcome("ok", 0), *silent_load(has_report=True)) == ()


DECLARED = '{"quant_method": "fp8", "modules_to_not_convert": ["lm_head", "gone"]}'


def test_an_entry_that_the_engine_added_to_the_list_is_not_stale(tmp_path):
    (found,) = recorded(
        tmp_path, Outcome("ok", 0), CheckpointOpened(quantization_config=DECLARED),
        TensorListed("lm_head.weight", "BF16", (4, 4)), ParameterRegistered("lm_head.weight", shape=(4, 4)),
        SkipDecided("lm_head", is_skipped=True, matched_entry=0, ignored=("lm_head", "model.lm_head", "gone")),
        LoaderCalled(checkpoint_name="lm_head.weight", parameter="lm_head.weight", outcome="returned"), ModelLoaded(1),
    )  # fmt: skip
    assert (found.class_, found.title) == ("skip-decision/stale-entry", "1 list entry matches no module")
    assert "gone (entry 2)" in found.sentence


def test_a_failure_follows_from_the_decision_on_its_module_whatever_the_model_calls_it(tmp_path):
    built, called = "language_model.layers.0.q", "layers.0.q"
    failed = StageFailed(
        "ValueError", "no", "f:1", ("f:1 load",), called, f"{called}.weight", "q.weight", 0, "weight.load"
    )
    root, follow_on = recorded(
        tmp_path, Outcome("failed", 1), CheckpointOpened(quant_method="fp8", quantization_config=DECLARED),
        TensorListed(f"{built}.weight", "BF16", (4, 4)),
        SkipDecided(built, is_skipped=False, ignored=("lm_head",), tried=(built,)),
        MethodSelected(built, "Linear", "Fp8Config", "Fp8LinearMethod"),
        ParameterRegistered(f"{called}.weight", dtype="float8_e4m3fn", shape=(4, 4), built_as=built), failed,
    )[:2]  # fmt: skip
    assert (root.class_, root.module) == ("precision/contradiction", built)
    assert (follow_on.class_, follow_on.module, follow_on.root) == ("host/failed", called, False)


def test_a_parameter_whose_blocks_are_held_aside_is_not_called_empty(tmp_path):
    held = LoaderCalled(
        checkpoint_name="q.qweight",
        parameter="q.qweight",
        parameter_class="GGUFUninitializedParameter",
        outcome="returned",
    )
    registered = ParameterRegistered("q.qweight", "GGUFUninitializedParameter")
    assert recorded(tmp_path, Outcome("ok", 0), registered, held, ModelLoaded(1, has_report=False)) == ()


@pytest.mark.parametrize(("joined", "count"), [(("1", "0"), 1), (("0", "1"), 0), (("0", "2", "1"), 1), ((), 0)])
def test_parts_joined_in_another_order_than_theirs_are_named(tmp_path, joined, count):
    module = "model.layers.0.mlp.gate_up_proj"
    recorder = Recorder(tmp_path)
    for shard in joined:
        for name in ("qweight_type", "qweight"):
            recorder.point(LoaderCalled(f"m.part_{shard}.{name}", f"{module}.{name}", shard_id=shard), 1)
    recorder.point(WeightsProcessed(module, "GGUFMethod", joined=joined), 1)
    recorder.close()
    session = Session.open(tmp_path)
    found = [one for one in findings(session) if one.class_ == "shard/joined-order"]
    session.close()
    assert len(found) == count
    for one in found:
        assert (one.module, one.rank, one.parameter) == (module, 1, f"{module}.qweight")
        assert one.tensor == f"m.part_{joined[0]}.qweight"
        assert [evidence.names for evidence in one.evidence[:-1]] == [f"m.part_{shard}.qweight" for shard in joined]
