"""Exact maps against index arrays of numpy: element to source, ranges of the source back to boxes, stretches taken."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.checkpoint import unconsumed
from sessions.ledger import Write
from sessions.maps import AffineMap, boxes_of_range, map_of, row_major, unravelled
from sessions.stored import Stored


def numbered(shape):
    return np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)


@st.composite
def views(draw):
    """A view of a source of random shape: sliced with steps, permuted, broadcast; and where it lies in a parameter."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    source = numbered(shape)
    taken = source[tuple(slice(draw(st.integers(0, n - 1)), n, draw(st.integers(1, 3))) for n in shape)]
    taken = taken.transpose(draw(st.permutations(range(taken.ndim))))
    if draw(st.booleans()):
        taken = np.broadcast_to(taken, (draw(st.integers(1, 3)), *taken.shape))
    start = tuple(draw(st.integers(0, 3)) for _ in taken.shape)
    return source, taken, start


def mapped(taken, start):
    strides = tuple(stride // taken.itemsize for stride in taken.strides)
    return AffineMap(start, taken.shape, int(taken.reshape(-1)[0]), strides)


@given(views())
def test_every_element_maps_to_the_number_that_stands_there(case):
    _, taken, start = case
    at = mapped(taken, start)
    for index in np.ndindex(taken.shape):
        here = tuple(a + i for a, i in zip(start, index, strict=True))
        assert at.holds(here)
        assert at.source(here) == taken[index]


@given(views(), st.integers(0, 250), st.integers(0, 250))
def test_a_range_of_the_source_comes_back_as_disjoint_boxes_of_exactly_its_elements(case, begin, length):
    _, taken, start = case
    mask = np.zeros([a + n for a, n in zip(start, taken.shape, strict=True)], dtype=int)
    for first, size in mapped(taken, start).boxes_from(begin, begin + length):
        mask[tuple(slice(a, a + n) for a, n in zip(first, size, strict=True))] += 1
    expected = np.zeros_like(mask)
    expected[tuple(slice(a, None) for a in start)] = (taken >= begin) & (taken < begin + length)
    assert np.array_equal(mask, expected)


@given(views())
def test_stretches_are_exactly_what_is_taken(case):
    source, taken, start = case
    held = np.zeros(source.size, dtype=bool)
    for begin, end in mapped(taken, start).runs():
        held[begin:end] = True
    assert np.array_equal(np.flatnonzero(held), np.unique(taken))


@given(st.lists(st.integers(1, 5), min_size=0, max_size=4), st.integers(0, 80), st.integers(0, 80))
def test_a_range_in_memory_order_becomes_few_boxes(shape, begin, length):
    shape = tuple(shape) or (1,)
    flat = np.zeros(int(np.prod(shape)), dtype=int)
    flat[begin : begin + length] = 1
    mask = np.zeros(shape, dtype=int)
    found = boxes_of_range(begin, begin + length, shape)
    for first, size in found:
        mask[tuple(slice(a, a + n) for a, n in zip(first, size, strict=True))] += 1
    assert np.array_equal(mask.reshape(-1), flat)
    assert len(found) <= 2 * len(shape) - 1 or not length


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_numbers_and_indices_are_those_of_numpy(shape):
    for number, index in enumerate(np.ndindex(*shape)):
        assert unravelled(number, shape) == index
        assert sum(i * s for i, s in zip(index, row_major(shape), strict=True)) == number


def write(start, length, source_start=(), source_length=(), source="", **more):
    n = int(np.prod(length)) if length else more.pop("elements", 1)
    return Write(0, 0, "t", "", -1, start, length, n, source_start, source_length, source, "copy_", **more)


BOXED = {
    "plain": ((2, 3), (2, 3), lambda w: w, ""),
    "cast": ((2, 3), (2, 3), lambda w: w, "cast bfloat16 to float32"),
    "one row less a dimension": ((3,), (1, 3), lambda w: w[0], ""),
    "transposed": ((3, 2), (2, 3), lambda w: w.T, "transposed"),
    "broadcast of a row": ((4, 3), (1, 3), lambda w: np.broadcast_to(w[:1], (4, 3)), "broadcast"),
    "broadcast of a column": ((2, 5), (2, 1), lambda w: np.broadcast_to(w[:, :1], (2, 5)), "broadcast"),
    "broadcast of one": ((2, 5), (1, 1), lambda w: np.broadcast_to(w[:1, :1], (2, 5)), "broadcast"),
}


@pytest.mark.parametrize(("length", "size", "made", "said"), BOXED.values(), ids=BOXED)
def test_boxes_without_a_recorded_map_give_the_map_where_there_is_one_only(length, size, made, said):
    source, first = numbered((7, 8)), (1, 2)
    taken, start = made(source[1:3, 2:5]), (4,) * len(length)
    at = map_of(write(start, length, first, size, said), source.shape)
    for index in np.ndindex(*length):
        assert at.source(tuple(a + i for a, i in zip(start, index, strict=True))) == taken[index]


@pytest.mark.parametrize("said", ["computed by aten::mul", "made before the call", "unknown", "constant"])
def test_what_was_computed_has_no_map(said):
    assert map_of(write((0, 0), (2, 3), (0, 0), (2, 3), said), (2, 3)) is None
    assert map_of(write((0, 0), (2, 3), (), (), said), (2, 3)) is None


def test_boxes_that_allow_two_maps_give_none():
    assert map_of(write((0, 0, 0), (2, 3, 2), (0, 0, 0), (2, 3, 2), "transposed"), (2, 3, 2)) is None
    assert map_of(write((0, 0), (4, 3), (0, 0), (2, 6)), (2, 6)) is None


def test_a_recorded_map_goes_before_what_the_boxes_say():
    at = map_of(write((0, 0), (2, 2), (0, 0), (2, 2), source_offset=5, source_strides=(0, 3)), (4, 4))
    assert [at.source(index) for index in np.ndindex(2, 2)] == [5, 8, 5, 8]


@given(st.lists(views(), min_size=1, max_size=3))
def test_what_nobody_took_of_a_tensor_is_told_by_maps_as_by_boxes(cases):
    source = cases[0][0]
    held = np.zeros(source.size, dtype=bool)
    writes = []
    for _, taken, _ in cases:
        fitting = taken if taken.max() < source.size else taken % source.size * 0
        held[np.unique(fitting)] = True
        strides = tuple(s // taken.itemsize for s in taken.strides) if fitting is taken else (0,) * taken.ndim
        offset = int(fitting.reshape(-1)[0])
        writes.append(write((0,) * taken.ndim, taken.shape, source_offset=offset, source_strides=strides))
    one = Stored("t", "f", "float32", source.shape, 32, 0, source.size * 4)
    mask = np.zeros(source.shape, dtype=int)
    for first, size in unconsumed(one, writes):
        mask[tuple(slice(a, a + n) for a, n in zip(first, size, strict=True))] += 1
    assert np.array_equal(mask.reshape(-1).astype(bool), ~held)
    assert mask.max(initial=0) <= 1
