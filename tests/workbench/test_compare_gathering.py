"""From the parts of ranks to whole tensors: slices, copies, copies of KV heads, summands, slots."""

import numpy as np
import pytest

from workbench.compare.gathering import common_size, distinct, gathered, split_slots, whole_shape

WHOLE = np.random.default_rng(0).standard_normal((5, 12)).astype(np.float32)


def test_slices_of_any_dimension_are_joined_in_the_order_of_the_ranks():
    for axis in (0, 1):
        parts = np.array_split(WHOLE, 4 if axis else 5, axis=axis)
        got = gathered(parts, WHOLE.shape)
        assert got.how == "slices"
        assert np.array_equal(got.values, WHOLE)


def test_copies_are_taken_once_also_when_they_differ_in_rounding():
    got = gathered([WHOLE, WHOLE * (1 + 1e-6), WHOLE], WHOLE.shape)
    assert got.how == "copies"
    assert np.array_equal(got.values, WHOLE)


def test_parts_of_the_whole_shape_that_differ_are_added():
    got = gathered([WHOLE, 2 * WHOLE], WHOLE.shape)
    assert got.how == "summands"
    assert np.allclose(got.values, 3 * WHOLE)


def test_heads_that_neighbouring_ranks_copy_are_taken_once():
    first, second = np.array_split(WHOLE, 2, axis=1)
    got = gathered([first, first, second, second], WHOLE.shape)
    assert np.array_equal(got.values, WHOLE)


def test_copies_of_neighbours_are_dropped_only_where_each_part_has_as_many():
    a, b = np.array_split(WHOLE, 2, axis=1)
    assert [part is want for part, want in zip(distinct([a, a, b, b]), [a, b], strict=True)] == [True, True]
    assert len(distinct([a, a, a])) == 1
    assert len(distinct([a, b, a, b])) == 4
    assert len(distinct([a, a, b])) == 3


def test_without_a_whole_to_compare_with_different_parts_are_slices():
    parts = np.array_split(WHOLE, 3, axis=1)
    assert np.array_equal(gathered(parts, None).values, WHOLE)
    assert gathered([WHOLE, WHOLE], None).how == "copies"


@pytest.mark.parametrize("parts", [[(5, 5), (5, 5)], [(4, 6), (4, 6)], [(5, 6), (5, 5)], [(60,), (60,)]])
def test_parts_that_do_not_fit_the_whole_give_nothing(parts):
    assert gathered([np.arange(np.prod(shape)).reshape(shape) for shape in parts], (5, 12)) is None


@pytest.mark.parametrize(
    ("left", "left_ranks", "right", "right_ranks", "whole"),
    [(12, 1, 3, 4, 12), (12, 1, 6, 4, 12), (6, 2, 3, 4, 12), (6, 2, 6, 4, 12), (12, 1, 5, 4, None)],
)
def test_the_common_size_is_the_largest_that_both_sides_can_hold(left, left_ranks, right, right_ranks, whole):
    assert common_size(left, left_ranks, right, right_ranks) == whole


def test_a_dimension_that_both_sides_hold_alike_is_whole():
    assert whole_shape((5, 12), 1, (5, 3), 4) == (5, 12)
    assert whole_shape((5, 12), 1, (4, 3), 4) is None
    assert whole_shape((5, 12), 1, (5, 3, 1), 4) is None


def test_slots_are_cut_from_the_last_dimension_and_only_when_they_fill_it():
    q, k, v = split_slots(WHOLE, [6, 3, 3])
    assert np.array_equal(np.concatenate([q, k, v], axis=-1), WHOLE)
    assert (q.shape, k.shape, v.shape) == ((5, 6), (5, 3), (5, 3))
    assert split_slots(WHOLE, [6, 3]) is None
