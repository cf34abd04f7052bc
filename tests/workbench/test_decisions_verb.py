"""`loadscope decisions`: what it says of each module, of which modules, and its exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from inspectors.probe.events import KernelChosen, MethodSelected, SkipDecided
from inspectors.probe.recorder import Recorder
from sessions.manifest import Manifest, Outcome
from workbench.cli import main

GOLDEN = Path(__file__).parents[2] / "sessions" / "golden"
GATE, NORM = "model.layers.0.mlp.gate_up_proj", "model.layers.0.norm"


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decided")
    recorder = Recorder(folder)
    for rank in (0, 1):
        tried = ("model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj")
        recorder.point(
            SkipDecided(GATE, False, -1, ("lm_head", "other"), tried, "model", "is_layer_skipped", "skip.py:9"), rank
        )
        recorder.point(MethodSelected(GATE, "MergedLinear", "BlockConfig", "BlockLinear", "config.py:5"), rank)
        kernel = "fast" if rank else "reference"
        refused = ("slow: it has no block_linear",) if rank else ("fast: not on this device",)
        recorder.point(KernelChosen(GATE, "block_linear", kernel, refused, "choice.py:3"), rank)
        recorder.point(KernelChosen(NORM, "rms_norm", "", ("fast: it has no rms_norm",), "choice.py:3"), rank)
    recorder.close()
    Manifest(engine="toy", tp=2, outcome=Outcome("ok", 0)).write(folder)
    return folder


def run(capsys, *words):
    code = main(["decisions", *map(str, words)])
    return code, capsys.readouterr()


def test_a_module_is_explained_from_the_list_to_the_kernel(session, capsys):
    code, told = run(capsys, session, GATE)
    lines = [line.strip() for line in told.out.splitlines()]
    assert code == 0
    assert f"{GATE}  rank 0" in lines
    assert f"{GATE}  rank 1" in lines
    for line in (
        "skip      quantized: none of 2 entries matched", "tried     model.layers.0.mlp.gate_proj",
        "expanded  from the model's own table", "rule      is_layer_skipped  skip.py:9",
        "method    BlockLinear for MergedLinear, chosen by BlockConfig", "config.py:5",
        "kernel    block_linear: reference", "not fast: not on this device", "kernel    block_linear: fast",
    ):  # fmt: skip
        assert line in lines


def test_modules_without_a_method_tell_their_kernels_once_for_ranks_that_chose_alike(session, capsys):
    _, told = run(capsys, session)
    assert told.out.endswith(
        f"{NORM}\n  kernel    rms_norm: composed of other kernels\n            not fast: it has no rms_norm\n"
    )


@pytest.mark.parametrize(
    ("asked", "found"),
    [("model.layers.0", 3), ("*.mlp.*", 2), (NORM, 1), ("model.layers", 3), ("*norm", 1)],
)
def test_modules_are_asked_for_by_name_by_what_is_around_them_or_by_pattern(session, capsys, asked, found):
    import json

    code, told = run(capsys, session, asked, "--json")
    said = json.loads(told.out)
    assert (code, len(said["decisions"]), said["verb"]) == (0, found, "decisions")


def test_the_object_of_json_holds_what_the_text_says(session, capsys):
    import json

    _, told = run(capsys, session, GATE, "--json")
    one = json.loads(told.out)["decisions"][0]
    assert (one["module"], one["ranks"]) == (GATE, [0])
    assert one["skip"]["tried"] == ["model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"]
    assert (one["skip"]["expansion_source"], one["skip"]["matched_entry"]) == ("model", -1)
    assert one["method"] == {
        "class": "BlockLinear", "layer_class": "MergedLinear", "config_class": "BlockConfig", "where": "config.py:5",
    }  # fmt: skip
    assert one["kernels"] == [
        {"op": "block_linear", "kernel": "reference", "refused": ["fast: not on this device"], "where": "choice.py:3"}
    ]


def test_a_module_nobody_decided_on_is_told_with_the_nearest(session, capsys):
    code, told = run(capsys, session, "model.layers.0.mlp.gate_up")
    assert code == 2
    assert told.err.splitlines() == [
        "loadscope: no decision was recorded for model.layers.0.mlp.gate_up", f"try: did you mean {GATE}?"
    ]  # fmt: skip


def test_a_session_without_decisions_is_incomplete(tmp_path, capsys):
    recorder = Recorder(tmp_path)
    recorder.point(KernelChosen())
    recorder.close()
    empty = tmp_path / "empty"
    empty.mkdir()
    from inspectors.probe.events import EngineFound

    recorder = Recorder(empty)
    recorder.point(EngineFound("toy", "1", "toy.py"))
    recorder.close()
    Manifest(engine="toy").write(empty)
    code, told = run(capsys, empty)
    assert (code, len(told.err.splitlines())) == (5, 2)


def test_a_module_built_otherwise_than_stored_gives_exit_1_and_says_what_was_not_tried(capsys):
    code, told = run(capsys, GOLDEN / "fp8-skip", "*layers.0.linear_attn.in_proj_ba")
    assert code == 1
    assert told.out.startswith("✗ model.layers.0.linear_attn.in_proj_ba\n")
    assert "expanded  from the fallback table, not the model" in told.out
    assert 'untried   entry 2, "model.layers.0.linear_attn.in_proj_ba", names it' in told.out
    assert "built     float8_e4m3fn, which contradicts what is stored" in told.out
