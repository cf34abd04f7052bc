"""Ranks as threads: collectives, order, and every way in which a rank can leave the others waiting."""

from __future__ import annotations

import threading
import traceback
from itertools import pairwise

import pytest
import torch

from backends.native.errors import LockstepError
from backends.native.parallel.groups import all_gather, all_reduce, shared, tp_rank, tp_size
from backends.native.parallel.lockstep import RankAbortedError, run_ranks

SIZES = (1, 2, 3, 4, 8)


@pytest.fixture(autouse=True)
def no_thread_is_left_behind():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_outside_a_group_there_is_one_rank_and_it_is_rank_zero():
    assert (tp_rank(), tp_size()) == (0, 1)


@pytest.mark.parametrize("size", SIZES)
def test_every_rank_knows_its_rank_and_returns_its_own_result(size):
    assert run_ranks(size, lambda rank: (rank, tp_rank(), tp_size())) == [(r, r, size) for r in range(size)]
    assert (tp_rank(), tp_size()) == (0, 1)


@pytest.mark.parametrize("size", SIZES)
def test_all_reduce_sums_and_all_gather_concatenates_in_rank_order(size):
    def work(rank):
        return all_reduce(torch.tensor([rank + 1.0])), all_gather(torch.tensor([[rank]]), dim=-1)

    for total, gathered in run_ranks(size, work):
        assert total.tolist() == [size * (size + 1) / 2]
        assert gathered.tolist() == [list(range(size))]


def test_results_of_a_collective_are_not_shared_between_ranks():
    def work(rank):
        x = all_reduce(torch.ones(2))
        x += rank
        return all_gather(x)

    assert run_ranks(2, work)[0].tolist() == [2, 2, 3, 3]


def test_one_rank_runs_at_a_time_and_the_baton_goes_round_in_rank_order():
    steps = []

    def work(rank):
        for step in range(3):
            steps.append((step, rank))
            all_reduce(torch.zeros(1))

    run_ranks(3, work)
    assert steps == [(step, rank) for step in range(3) for rank in range(3)]


def test_a_group_of_one_runs_in_the_calling_thread():
    assert run_ranks(1, lambda _: threading.current_thread()) == [threading.current_thread()]


def test_every_rank_is_given_the_same_object_before_the_next_one_is_read():
    seen, read = [], []

    def items():
        for number in range(3):
            read.append((number, tp_rank()))
            yield [number]

    source = items()
    given = run_ranks(4, lambda rank: [seen.append((item[0], rank)) or item for item in shared(source)])
    assert all(one is other for ranks in zip(*given, strict=True) for one, other in pairwise(ranks))
    assert seen == [(number, rank) for number in range(3) for rank in range(4)]
    assert read == [(0, 0), (1, 0), (2, 0)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("collectives_before", [0, 1, 2])
def test_the_first_failure_is_raised_unchanged_with_its_traceback(size, collectives_before):
    error = KeyError("w2_weight")

    def fails_here():
        raise error

    def work(rank):
        for _ in range(collectives_before):
            all_reduce(torch.zeros(1))
        if rank == size - 1:
            fails_here()
        all_reduce(torch.zeros(1))

    with pytest.raises(KeyError) as caught:
        run_ranks(size, work)
    assert caught.value is error
    assert "fails_here" in [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def test_the_failure_of_the_rank_that_ran_first_wins():
    def work(rank):
        raise ValueError(rank)

    with pytest.raises(ValueError, match="0"):
        run_ranks(4, work)


def test_a_failure_while_reading_a_shared_iterator_ends_every_rank():
    def items():
        yield 1
        raise OSError("disk")

    source = items()
    with pytest.raises(OSError, match="disk"):
        run_ranks(3, lambda _: list(shared(source)))


def test_a_rank_that_returns_early_is_named_instead_of_waited_for():
    def work(rank):
        if rank != 1:
            all_reduce(torch.zeros(2))

    with pytest.raises(LockstepError, match=r"rank 0 at all_reduce of \(2,\); rank 1 at the end of its work"):
        run_ranks(3, work)


def test_ranks_at_different_collectives_are_named():
    def work(rank):
        return all_reduce(torch.zeros(2)) if rank else all_gather(torch.zeros(2))

    with pytest.raises(LockstepError, match=r"rank 0 at all_gather.*rank 1 at all_reduce"):
        run_ranks(2, work)


def test_ranks_that_disagree_on_a_shape_are_named():
    with pytest.raises(LockstepError, match=r"rank 0 at all_reduce of \(1,\); rank 1 at all_reduce of \(2,\)"):
        run_ranks(2, lambda rank: all_reduce(torch.zeros(rank + 1)))


def test_an_except_clause_of_the_work_does_not_keep_an_aborted_rank_running():
    ended = []

    def work(rank):
        if rank == 1:
            raise RuntimeError("rank 1")
        try:
            all_reduce(torch.zeros(1))
        except Exception:  # noqa: BLE001 - what the test is about
            ended.append("swallowed")
        except RankAbortedError:
            ended.append("aborted")
            raise

    with pytest.raises(RuntimeError, match="rank 1"):
        run_ranks(2, work)
    assert ended == ["aborted"]


def test_a_collective_in_the_finally_clause_of_an_aborted_rank_does_not_hang():
    def work(rank):
        try:
            all_reduce(torch.zeros(1))
            if rank == 2:
                raise RuntimeError("rank 2")
            all_reduce(torch.zeros(1))
        finally:
            all_reduce(torch.zeros(1))

    with pytest.raises((RuntimeError, LockstepError)):
        run_ranks(4, work)
