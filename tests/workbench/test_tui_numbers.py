"""The lines of the screens that tell numbers, launches and choices."""

from __future__ import annotations

import pytest

from inspectors.probe.events import KernelChosen, KernelLaunched, MethodSelected, SkipDecided, ValueSummarized
from inspectors.probe.recorder import Recorder
from sessions.decisions import decisions
from sessions.manifest import Manifest, Outcome
from sessions.numerics import numerics_of
from sessions.session import Session
from workbench.tui.views.decisions import argument
from workbench.tui.views.launch import launch_facts
from workbench.tui.views.numbers import numbers

SCALE = {"parameter": "m.weight_scale", "role": "scale", "module": "m", "dtype": "float32", "shape": (4,)}
WIDTH = 60


@pytest.fixture
def session(tmp_path):
    recorder = Recorder(tmp_path, "values")
    facts = {"absmax": 0.5, "minimum": 0.125, "maximum": 0.5, "mean": 0.25, "rms": 0.25}
    for stage in ("weight.map", "weights.process"):
        recorder.point(ValueSummarized(**SCALE, **facts), 0, stage)
    packed = {"parameter": "m.qweight", "module": "m", "dtype": "uint8", "shape": (4,)}
    recorder.point(ValueSummarized(**packed, subnormal_fraction=-1.0, saturated_fraction=-1.0), 0, "weight.map")
    recorder.point(
        ValueSummarized(module="m", role="output", dtype="bfloat16", shape=(2,), nan_count=2), 0, "forward.run"
    )
    recorder.point(SkipDecided("m", False, -1, ("x",), ("m",), "none", "skip", "quantization/skip.py:9"), 0)
    recorder.point(MethodSelected("m", "Linear", "Config", "BlockLinear", "quantization/config.py:5"), 0)
    recorder.point(KernelChosen("m", "block_linear", "fast", ("slow: it has none",), "choice.py:3"), 0)
    recorder.close()
    Manifest(level="values", engine="toy", outcome=Outcome("ok", 0)).write(tmp_path)
    opened = Session.open(tmp_path)
    yield opened
    opened.close()


def plain(lines):
    return [line.plain.strip() for line in lines if line.plain.strip()]


def test_numbers_that_did_not_change_are_told_once_with_the_spread_of_scales(session):
    lines = plain(numbers(numerics_of(session)["m.weight_scale", 0], WIDTH))
    assert lines[0] == "numbers, loaded and processed"
    assert lines[2].endswith("spread 4 ×")
    assert lines[3] == "zeros 0 %  subnormal 0 %  saturated 0 %"


def test_a_fraction_without_a_meaning_is_left_out(session):
    assert plain(numbers(numerics_of(session)["m.qweight", 0], WIDTH))[-1] == "zeros 0 %"


def test_what_is_not_a_number_stands_out(session):
    lines = plain(numbers(numerics_of(session)["m", 0], WIDTH))
    assert (lines[0], lines[-1]) == ("output 0", "✗ 2 NaN")


def test_a_decision_shows_its_rule_its_method_and_the_kernel_that_runs(session):
    (one,) = decisions(session)
    lines = plain(argument(one, WIDTH))
    assert "by quantization/skip.py:9" in lines
    assert lines[-3:] == ["BlockLinear", "by quantization/config.py:5", "runs fast block_linear"]


def test_a_launch_tells_what_it_is_known_to_take():
    body = KernelLaunched(
        strides=("[8,1]", "[1]"), alignments=(512, 16), num_warps=4, registers=168, spills=2, shared_bytes=4096,
        device_ns=12_500,
    )  # fmt: skip
    assert plain(launch_facts(body, WIDTH)) == [
        "stride [8,1]", "[1]  begins at a multiple of 16", "with   4 warps, 168 registers", "spills 2 registers",
        "shared 4,096 bytes", "device 12 µs",
    ]  # fmt: skip
    assert launch_facts(KernelLaunched(), WIDTH) == []
