"""Two recordings side by side: nothing legitimate is a difference, and every planted one is found where it is."""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from inspectors.probe.events import (
    EngineFound,
    LoaderCalled,
    MemorySampled,
    ShardSplit,
    SkipDecided,
    StageFailed,
    ValueSummarized,
    WeightsMapped,
    WeightWritten,
)
from inspectors.probe.recorder import Recorder
from sessions.alignment import align
from sessions.manifest import Manifest, Outcome
from sessions.matching import matched

RANKS = 2


def calls(count: int = 6) -> list[list[object]]:
    """The loader calls of each rank, in order: [body, what is inside]."""
    out = []
    for n in range(count):
        name = f"model.layers.{n}.weight"
        body = LoaderCalled(checkpoint_name=name, parameter=name, tensor_dtype="bfloat16", tensor_shape=(8, 4))
        inside = [ShardSplit(name, name, 0, 0, 4, 8, "narrow"), WeightWritten(name, (0, 0), (4, 4), 16)]
        out.append([body, inside])
    return out


def record(folder: Path, plan, *, level="ledger", outcome=None, closes=True, ranks=range(RANKS), after=()) -> Path:
    recorder = Recorder(folder, level)
    recorder.point(EngineFound("toy", "1.0", f"{folder}/toy.py"))
    recorder.point(SkipDecided("model.layers.0", False, -1, ("lm_head",)), 0)
    for rank in ranks:
        span = recorder.begin(WeightsMapped("Toy", 6), rank)
        for body, inside in plan(rank):
            recorder.point(MemorySampled("call", time.monotonic_ns()), rank)
            call = recorder.begin(body, rank)
            for one in inside:
                recorder.point(one, rank)
            recorder.end(call, dataclasses.replace(body, outcome="returned"))
        recorder.end(span)
    for one in after:
        recorder.point(one, 0)
    if closes:
        recorder.close()
    else:
        recorder.flush()
    Manifest(level=level, tp=RANKS, engine="toy", outcome=outcome or Outcome("ok", 0)).write(folder)
    return folder


@pytest.fixture
def aligned(tmp_path, opened):
    """Aligns the plain load with a changed one."""

    def run(change=None, **options):
        def changed(rank):
            plan = calls()
            return (change(plan) or plan) if change is not None and rank == 1 else plan

        first = opened(record(tmp_path / "first", lambda _rank: calls(), **options.pop("first", {})))
        second = opened(record(tmp_path / "second", changed, **options))
        return align(first, second)

    return run


def shown(alignment) -> list[tuple[object, ...]]:
    """(sort, kind, rank, what it is about, fields that differ)."""
    out = []
    for one in alignment.differences:
        session, at = (alignment.first, one.first) if one.first >= 0 else (alignment.second, one.second)
        name = getattr(session.event(at).body, "parameter", "")
        out.append((one.sort, one.kind, one.rank, name[-8:-7], [f.name for f in alignment.fields(one)]))
    return out


def test_two_recordings_of_one_load_are_alike_in_spite_of_times_addresses_and_samples(aligned):
    failed = [StageFailed("ValueError", f"<object at {0x7F001234 + n:#x}>", "a.py:1", ("a.py:1 f",)) for n in (0, 99)]
    found = aligned(first={"after": failed[:1]}, after=failed[1:])
    assert found.is_alike
    assert found.alike == 3 + RANKS * (1 + 6 * 3) + 1
    assert found.left_out == {"memory.sampled": 2 * RANKS * 6}


def set_field(name: str, value: object, at: int = 2, inside: int | None = None):
    def change(plan):
        if inside is None:
            plan[at][0] = dataclasses.replace(plan[at][0], **{name: value})
        else:
            plan[at][1][inside] = dataclasses.replace(plan[at][1][inside], **{name: value})

    return change


@pytest.mark.parametrize(
    ("name", "value", "inside", "kind"),
    [
        ("tensor_dtype", "float32", None, "loader.called"),
        ("tensor_shape", (4, 8), None, "loader.called"),
        ("shard_id", "'q'", None, "loader.called"),
        ("loader", "other_loader", None, "loader.called"),
        ("start", 4, 0, "shard.split"),
        ("length", 2, 0, "shard.split"),
        ("start", (4, 0), 1, "weight.written"),
        ("source", "broadcast", 1, "weight.written"),
    ],
)
def test_a_changed_fact_is_found_with_both_values(aligned, name, value, inside, kind):
    found = aligned(set_field(name, value, inside=inside))
    assert shown(found) == [("changed", kind, 1, "2", [name])]
    (field,) = found.fields(found.differences[0])
    assert (field.first, field.second) != (value, field.first)
    assert field.second == value
    assert not found.is_alike


def test_one_missing_call_is_one_missing_call_and_not_everything_after_it(aligned):
    found = aligned(lambda plan: plan.pop(2) and None)
    assert found.counts() == {kind: {"missing": 1} for kind in ("loader.called", "shard.split", "weight.written")}
    assert shown(found)[0] == ("missing", "loader.called", 1, "2", [])
    first = found.differences[0]
    assert found.first.event(first.before[0]).body.parameter == "model.layers.1.weight"
    assert found.first.event(first.before[0]).rank == 1


def test_an_extra_call_is_told_with_what_it_holds(aligned):
    found = aligned(lambda plan: plan.insert(3, calls(9)[8]))
    assert [(one[0], one[1]) for one in shown(found)] == [
        ("extra", "loader.called"), ("extra", "shard.split"), ("extra", "weight.written"),
    ]  # fmt: skip


def test_two_calls_in_the_other_order_are_one_that_moved(aligned):
    found = aligned(lambda plan: [*plan[:2], plan[3], plan[2], *plan[4:]])
    assert {sort for sort, *_ in shown(found)} == {"moved"}
    assert found.counts()["loader.called"] == {"moved": 1}
    first = found.differences[0]
    assert found.second_of(first.first) == first.second
    assert found.first_of(first.second) == first.first


def test_a_call_that_fills_another_parameter_is_changed_and_not_missing_and_extra(aligned):
    found = aligned(set_field("parameter", "model.layers.9.weight"))
    assert shown(found) == [("changed", "loader.called", 1, "2", ["parameter"])]


def test_another_decision_and_another_failure_are_found(aligned):
    after = [SkipDecided("lm_head", True, 0, ("lm_head",)), StageFailed("ValueError", "3 values for 2")]
    other = [dataclasses.replace(after[0], is_skipped=False, matched_entry=-1), StageFailed("TypeError", "no loader")]
    found = aligned(first={"after": after}, after=other)
    assert [(one[1], one[4]) for one in shown(found)] == [
        ("skip.decided", ["is_skipped", "matched_entry"]), ("stage.failed", ["error", "message"]),
    ]  # fmt: skip


def test_statistics_are_compared_bit_by_bit(aligned):
    values = [ValueSummarized("p", absmax=1.0, mean=0.0), ValueSummarized("q", absmax=float("nan"))]
    other = [ValueSummarized("p", absmax=1.0000000000000002, mean=-0.0), ValueSummarized("q", absmax=float("nan"))]
    found = aligned(first={"after": values, "level": "values"}, after=other, level="values")
    assert [one[4] for one in shown(found)] == [["absmax", "mean"]]


def test_a_replay_at_a_lesser_level_is_compared_at_that_level(aligned):
    found = aligned(lambda plan: [[body, inside[:1]] for body, inside in plan], level="calls")
    assert found.is_alike
    assert found.level == "calls"
    assert found.left_out["weight.written"] == RANKS * 6 + 6


def test_another_end_of_the_host_is_a_difference_though_every_event_is_alike(aligned):
    found = aligned(outcome=Outcome("failed", 1))
    assert found.differences == ()
    assert (found.outcome.first, found.outcome.second) == ("ok", "failed with exit code 1")
    assert not found.is_alike


def test_ranks_that_take_turns_in_another_way_are_alike(aligned):
    assert aligned(ranks=range(RANKS - 1, -1, -1)).is_alike


def test_a_recording_cut_off_by_a_kill_is_a_beginning_of_the_whole_one(tmp_path, opened):
    whole = opened(record(tmp_path / "whole", lambda _rank: calls()))
    cut = opened(record(tmp_path / "cut", lambda rank: calls(6 if rank == 0 else 3), closes=False))
    for found in (align(cut, whole), align(whole, cut)):
        assert found.is_alike
        assert found.beyond == 3 * 3


def test_a_recording_cut_off_by_a_kill_is_still_compared_as_far_as_it_goes(tmp_path, opened):
    def other(rank):
        plan = calls(4)
        set_field("shard_id", "'q'", at=1)(plan)
        return plan

    whole = opened(record(tmp_path / "whole", lambda _rank: calls(), ranks=(0,)))
    found = align(opened(record(tmp_path / "cut", other, closes=False, ranks=(0,))), whole)
    assert shown(found) == [("changed", "loader.called", 0, "1", ["shard_id"])]


def longest(a, b) -> int:
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def test_pairs_are_equal_ascend_and_are_nearly_as_many_as_can_be():
    chance = random.Random(5)  # noqa: S311 - sequences, not secrets
    short = 0
    for _ in range(400):
        a, b = ([chance.randrange(5) for _ in range(chance.randrange(14))] for _ in range(2))
        pairs = matched(a, b)
        assert all(a[i] == b[j] for i, j in pairs)
        assert all(x[0] < y[0] and x[1] < y[1] for x, y in pairwise(pairs))
        short += longest(a, b) - len(pairs)
    assert short < 400 * 0.2
    edited = [n for n in range(1000) if n % 97]
    assert matched(range(1000), edited) == [(n, at) for at, n in enumerate(edited)]


def test_loader_threads_of_one_rank_have_no_order(tmp_path, opened):

    def run(folder, order):
        recorder = Recorder(folder)
        span = recorder.begin(WeightsMapped("Toy", 6), 0)

        def load(n):
            body, inside = calls()[n]
            call = recorder.begin(body, 0)
            for one in inside:
                recorder.point(one, 0)
            recorder.end(call)

        for n in order:
            thread = threading.Thread(target=load, args=(n,))
            thread.start()
            thread.join()
        recorder.end(span)
        recorder.close()
        Manifest(level="ledger", outcome=Outcome("ok", 0)).write(folder)
        return opened(folder)

    first, other = run(tmp_path / "a", range(6)), run(tmp_path / "b", [3, 0, 5, 1, 4, 2])
    assert align(first, other).is_alike
    missing = align(first, run(tmp_path / "c", [3, 0, 5, 1, 4]))
    assert missing.counts() == {kind: {"missing": 1} for kind in ("loader.called", "shard.split", "weight.written")}
