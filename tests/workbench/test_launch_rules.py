"""Recorded launches and numbers under judgement: limits of a device that is not there, numbers that are not sound."""

from __future__ import annotations

import pytest

from inspectors.probe.events import (
    ForwardRan,
    KernelLaunched,
    ParameterRegistered,
    ValueSummarized,
)
from inspectors.probe.recorder import Recorder
from sessions.manifest import Manifest, Outcome
from sessions.session import Session
from workbench.diagnosis.verdict import findings

MODULE = "model.layers.0.mlp.down_proj"
WEIGHT = {"parameter": f"{MODULE}.weight", "module": MODULE, "dtype": "float8_e4m3fn", "shape": (64, 64)}


@pytest.fixture
def judged(tmp_path):
    """The findings of a session with these events, each (body, stage)."""
    opened = []

    def judge(*events, limits="", recorded_limits="", tokens=0):
        folder = tmp_path / str(len(opened))
        folder.mkdir()
        recorder = Recorder(folder, "values")
        forward = recorder.begin(ForwardRan("M", "prefill", tokens), rank=0)
        for body, stage in events:
            recorder.point(body, 0, stage)
        recorder.end(forward)
        recorder.close()
        manifest = Manifest(level="values", device="cpu", limits=recorded_limits, outcome=Outcome("ok", 0))
        manifest.write(folder)
        opened.append(Session.open(folder))
        return [(one.class_, one.severity, one.title) for one in findings(opened[-1], limits)]

    yield judge
    for session in opened:
        session.close()


def launch(**facts):
    return KernelLaunched(name="split_kernel", launcher="triton", module=MODULE, **facts), None


def value(stage="weight.map", **facts):
    return ValueSummarized(**{**WEIGHT, **facts}), stage


GRID = ("kernel/grid-limit", "error", "split_kernel: grid 98,304 over 65,535")


def test_a_launch_on_a_cpu_is_judged_by_the_limits_of_another_device_when_asked(judged):
    launched = launch(grid=(2048, 48))
    assert judged(launched) == []
    assert judged(launched, limits="ascend-910b") == [GRID]
    assert judged(launched, recorded_limits="ascend-910b") == [GRID]
    assert judged(launched, limits="nvidia", recorded_limits="ascend-910b") == []


def test_a_limit_of_one_dimension_is_named_and_predicted(judged):
    assert judged(launch(grid=(1, 65536)), limits="nvidia") == [
        ("kernel/grid-limit", "error", "split_kernel: grid 65,536 over 65,535")
    ]
    grows = judged(launch(grid=(8, 96)), limits="nvidia", tokens=96)
    assert grows == [("kernel/grid-limit", "warning", "split_kernel: grid over 65,535 from 65,536 tokens")]
    assert judged(launch(grid=(96, 8)), limits="nvidia", tokens=96) == []  # the first dimension has room for 2^31


def test_an_empty_grid_is_refused_where_the_device_refuses_it(judged):
    empty = launch(grid=(0, 4))
    assert judged(empty, limits="ascend-910b") == [("kernel/grid-limit", "error", "split_kernel: an empty grid")]
    assert judged(empty, limits="nvidia") == []


def test_a_tensor_between_two_blocks_is_noted_only_for_the_device_that_was_asked_for(judged):
    launched = launch(grid=(4,), shapes=("bfloat16[3,64]", "float32[1]"), strides=("[64,1]", "[1]"), alignments=(16, 4))
    title = "split_kernel: tensor off the 32-byte blocks of ascend-910b"
    assert judged(launched) == []
    assert judged(launched, limits="ascend-910b") == [("kernel/alignment", "note", title)]
    assert judged(launched, limits="nvidia") == []


def test_rows_that_are_no_whole_blocks_apart_are_noted(judged):
    launched = launch(grid=(4,), shapes=("uint8[5,88]",), strides=("[88,1]",), alignments=(512,))
    title = "split_kernel: rows off the 32-byte blocks of ascend-910b"
    assert judged(launched, limits="ascend-910b") == [("kernel/alignment", "note", title)]


def test_launches_of_recordings_without_alignments_are_judged_by_their_grid_alone(judged):
    assert judged(launch(grid=(4,), shapes=("uint8[5,88]",)), limits="ascend-910b") == []


def test_a_parameter_that_is_not_finite_is_an_error_once(judged):
    found = judged(value(nan_count=3), value("weights.process", nan_count=3))
    assert found == [("numerics/not-finite", "error", "weight is not finite")]


def test_the_first_module_whose_output_is_not_finite_is_named(judged):
    sound = value("forward.run", parameter="", module="model.a", role="output")
    mask = value("forward.run", parameter="", module="model.b", role="input", inf_count=4)
    wrong = value("forward.run", parameter="", module="model.b", role="output", nan_count=2)
    after = value("forward.run", parameter="", module="model.c", role="output", nan_count=9)
    assert judged(sound, mask, wrong, after) == [("numerics/first-not-finite", "error", "NaN begins at b")]
    assert judged(sound, mask) == []  # masks are made of infinities


def test_what_begins_at_a_module_follows_from_its_parameter(judged):
    wrong = value("forward.run", parameter="", module=MODULE, role="output", nan_count=2)
    assert [found[0] for found in judged(wrong, value(nan_count=1))] == [
        "numerics/not-finite", "numerics/first-not-finite",
    ]  # fmt: skip


def test_what_no_module_put_out_begins_between_modules(judged):
    given = value("forward.run", parameter="", module="model.c", role="input", nan_count=1)
    assert judged(given) == [("numerics/first-not-finite", "error", "NaN begins at c")]


def test_a_scale_of_zero_is_a_warning_as_loaded_and_nothing_later(judged):
    facts = {"parameter": f"{MODULE}.weight_scale", "dtype": "float32", "shape": (4,), "role": "scale"}
    assert judged(value(zero_fraction=0.25, **facts)) == [
        ("numerics/zero-scale", "warning", "weight_scale holds zeros")
    ]
    assert judged(value("weights.process", zero_fraction=0.25, **facts)) == []
    assert judged(value(zero_fraction=0.25)) == []  # zeros in a weight are no news


def test_a_weight_at_the_end_of_its_dtype_is_clipped_unless_its_scales_put_it_there(judged):
    scale = {"parameter": f"{MODULE}.weight_scale", "dtype": "float32", "shape": (64, 1), "role": "scale"}
    clipped = [("numerics/saturated", "warning", "weight is clipped")]
    assert judged(value(saturated_fraction=0.06)) == clipped
    assert judged(value(saturated_fraction=0.04)) == []
    assert judged(value(**scale), value(saturated_fraction=0.06)) == []  # 64 scales of 64 elements: one each and more
    assert judged(value(saturated_fraction=0.5, dtype="bfloat16")) == []
    assert judged(value(saturated_fraction=-1.0)) == []


def test_summaries_after_single_calls_of_older_recordings_are_no_findings(judged):
    old = ValueSummarized(parameter="a.weight", nan_count=5), "weight.load"
    registered = ParameterRegistered("a.weight", "Parameter", "bfloat16", (4,), 8, "l", "l.py:1"), None
    assert judged(registered, old) == []
