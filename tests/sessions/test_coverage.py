"""Coverage counts and lines against a dense mask, which counts every element by itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.coverage import grid, line


@st.composite
def boxed(draw):
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)))
    box = st.tuples(
        st.tuples(*(st.integers(0, n) for n in shape)),
        st.tuples(*(st.integers(0, n + 1) for n in shape)),
    )
    return shape, draw(st.lists(box, max_size=6))


def dense(shape, boxes):
    mask = np.zeros(shape, dtype=int)
    for start, length in boxes:
        mask[tuple(slice(a, a + n) for a, n in zip(start, length, strict=True))] += 1
    return mask


@given(boxed())
def test_counts_equal_those_of_a_dense_mask(case):
    shape, boxes = case
    mask, found = dense(shape, boxes), grid(shape, boxes)
    assert found.never == (mask == 0).sum()
    assert found.twice == (mask >= 2).sum()


@given(boxed(), st.integers(1, 30), st.booleans())
def test_each_cell_of_the_line_shows_its_worst_element(case, width, is_final):
    shape, boxes = case
    flat = dense(shape, boxes).reshape(-1)
    order = "021" if is_final else "2.1"
    expected = ""
    for cell in range(width):
        begin = cell * len(flat) // width
        part = flat[begin : max(begin + 1, (cell + 1) * len(flat) // width)]
        marks = {"0" if is_final else ".": (part == 0).any(), "2": (part >= 2).any(), "1": True}
        expected += next(mark for mark in order if marks[mark])
    assert line(grid(shape, boxes), width, is_final) == expected


def test_one_missing_element_in_millions_is_one_red_cell():
    shape = (4096, 1024)
    boxes = [((0, 0), (2048, 1024)), ((2048, 0), (1, 700)), ((2048, 701), (1, 323)), ((2049, 0), (2047, 1024))]
    found = grid(shape, boxes)
    assert (found.never, found.twice) == (1, 0)
    assert line(found, 14, is_final=True) == "11111110111111"


@pytest.mark.parametrize(("boxes", "never"), [([], 1), ([((0,), (1,))], 0)])
def test_a_scalar_is_one_element(boxes, never):
    assert grid((), boxes).never == never


def test_a_parameter_without_elements_lacks_nothing():
    found = grid((0, 4), [])
    assert (found.never, found.twice) == (0, 0)
    assert line(found, 3, is_final=True) == "111"


def test_a_parameter_too_fragmented_to_hold_is_not_counted():
    boxes = [((n, n, n), (1, 1, 1)) for n in range(0, 1200, 2)]
    assert grid((1200, 1200, 1200), boxes) is None
