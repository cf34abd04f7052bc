"""Ranks that decide or load otherwise than the others are told; ranks that do the same are not."""

from __future__ import annotations

import pytest

from inspectors.probe.events import (
    LoaderCalled,
    MethodSelected,
    ModelLoaded,
    ParameterRegistered,
    SkipDecided,
    StageFailed,
    WeightsMapped,
)
from inspectors.probe.recorder import Recorder
from sessions.manifest import Manifest, Outcome
from sessions.session import Session
from workbench.diagnosis.verdict import findings

CLASS = "rank/divergence"


@pytest.fixture
def judged(tmp_path):
    """The findings of this kind on a load of several ranks; each is given as (skips, tensors, experts, fails)."""
    opened = []

    def judge(*ranks, state="ok"):
        (tmp_path / "streams").mkdir()
        Manifest(id="x", engine="native", tp=len(ranks), outcome=Outcome(state)).write(tmp_path)
        recorder = Recorder(tmp_path)
        for rank, facts in enumerate(ranks):
            record(recorder, rank, **facts)
        recorder.close()
        opened.append(Session.open(tmp_path))
        return [one for one in findings(opened[-1]) if one.class_ == CLASS]

    yield judge
    for session in opened:
        session.close()


def record(recorder, rank, skips=(), tensors=("a", "b"), experts=(), fails=False):
    for name in ("a", "b"):
        is_skipped = name in skips
        recorder.point(SkipDecided(f"m.{name}", is_skipped=is_skipped, ignored=("x",), tried=(f"m.{name}",)), rank)
        method = "UnquantizedLinearMethod" if is_skipped else "Fp8LinearMethod"
        recorder.point(MethodSelected(f"m.{name}", "Linear", "Fp8Config", method), rank)
    mapped = recorder.begin(WeightsMapped("M", 2), rank)
    for name in ("a", "b"):
        recorder.point(ParameterRegistered(f"m.{name}.weight", shape=(1,)), rank)
    for name in tensors:
        recorder.point(LoaderCalled(f"{name}.weight", f"m.{name}.weight", outcome="returned"), rank)
    for number in experts:
        recorder.point(LoaderCalled(f"e.{number}", "m.experts.w2", expert_id=number, outcome="returned"), rank)
    if fails:
        recorder.point(StageFailed("ValueError", "no", failed_stage="weight.load"), rank)
        recorder.end(mapped)
        return
    recorder.end(mapped)
    recorder.point(ModelLoaded(2, has_report=False), rank)


def test_ranks_that_do_the_same_are_not_told(judged):
    assert judged({}, {}, {}) == []


def test_a_module_that_one_rank_skips_and_another_quantizes_is_told(judged):
    (found,) = judged({}, {"skips": ("b",)})
    assert (found.severity, found.module, found.rank) == ("error", "m.b", 1)
    assert "Fp8LinearMethod on rank 0 and UnquantizedLinearMethod on rank 1" in found.sentence
    assert len(found.evidence) == 2


def test_a_call_that_one_rank_left_out_is_told(judged):
    (found,) = judged({}, {}, {"tensors": ("a",)})
    assert (found.severity, found.rank, found.tensor) == ("warning", 2, "b.weight")
    assert "0 calls that rank 0 did not, and left out 1 call" in found.sentence


def test_experts_may_belong_to_one_rank_alone(judged):
    assert judged({"experts": (0, 1)}, {"experts": (2, 3)}) == []


def test_a_rank_that_failed_has_not_made_all_its_calls(judged):
    assert judged({}, {"tensors": ("a",), "fails": True}, state="failed") == []
