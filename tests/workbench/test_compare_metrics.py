"""Metrics against plain formulas in float64, and cases worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from workbench.compare import metrics
from workbench.compare.metrics import decibels, measure, noise_map

PAIRS = st.tuples(st.integers(1, 9), st.integers(1, 7)).flatmap(
    lambda shape: st.tuples(*[arrays.arrays(np.float32, shape, elements=st.floats(-1e3, 1e3, width=32))] * 2)
)


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_every_metric_is_its_formula_in_float64_whatever_the_chunks(pair):
    reference, candidate = pair
    metrics.CHUNK_ELEMENTS, kept = 5, metrics.CHUNK_ELEMENTS
    try:
        said = measure(reference, candidate)
    finally:
        metrics.CHUNK_ELEMENTS = kept
    left, right = reference.astype(np.float64).ravel(), candidate.astype(np.float64).ravel()
    signal, noise = left @ left, (right - left) @ (right - left)
    assert said.compared == said.elements == left.size
    assert said.max_abs_error == np.abs(right - left).max()
    assert said.reference_absmax == np.abs(left).max()
    if signal == 0 or noise == 0:
        assert said.noise == (0 if noise == 0 else math.inf)
        return
    assert said.sqnr_db == pytest.approx(10 * math.log10(signal / noise), rel=1e-9)
    assert said.relative_error == pytest.approx(np.linalg.norm(right - left) / np.linalg.norm(left), rel=1e-9)
    if right @ right > 0:
        expected = (left @ right) / np.linalg.norm(left) / np.linalg.norm(right)
        assert said.cosine == pytest.approx(expected, abs=1e-12)


def test_values_worked_out_by_hand():
    said = measure(np.array([[3.0, 4.0]]), np.array([[3.0, 4.5]]))
    assert said.noise == pytest.approx(0.25 / 25)
    assert said.sqnr_db == pytest.approx(20.0)
    assert said.relative_error == pytest.approx(0.1)
    assert said.max_abs_error == 0.5
    assert said.cosine == pytest.approx((9 + 18) / (5 * math.sqrt(9 + 20.25)))


def test_one_row_gone_wrong_moves_the_noise_but_not_the_typical_noise():
    reference = np.ones((9, 4))
    candidate = reference * 1.01
    candidate[3] = -50
    said = measure(reference, candidate)
    assert said.typical_noise == pytest.approx(1e-4)
    assert said.noise > 100


def test_elements_that_are_not_finite_are_counted_and_left_out_of_the_sums():
    reference = np.array([1.0, np.nan, np.inf, 2.0, np.inf, 3.0])
    candidate = np.array([1.0, np.nan, np.inf, np.nan, -np.inf, 3.5])
    said = measure(reference, candidate)
    assert (said.elements, said.compared, said.odd) == (6, 2, 2)
    assert said.noise == pytest.approx(0.25 / 10)
    assert not said.is_exact


def test_equal_arrays_are_exact_and_zeros_have_no_cosine():
    zeros = np.zeros((2, 3))
    assert measure(np.array([np.nan, 1.0]), np.array([np.nan, 1.0])).is_exact
    assert measure(zeros, zeros).is_exact
    assert measure(zeros, zeros).cosine is None
    against_nothing = measure(zeros, zeros + 1)
    assert (against_nothing.noise, against_nothing.sqnr_db) == (math.inf, -math.inf)
    assert measure(np.zeros((0, 4)), np.zeros((0, 4))).elements == 0


def test_arrays_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 2\)"):
        measure(np.zeros((2, 3)), np.zeros((3, 2)))


def test_a_noise_map_sets_each_cell_against_the_power_of_the_whole():
    reference = np.full((4, 8), 2.0)
    candidate = reference.copy()
    candidate[0, :2] += 0.2  # 1/100 of the mean power in the first of 2 × 4 cells, on half of its elements
    cells = noise_map(reference, candidate, 2, 4)
    assert len(cells) == 2
    assert cells[0][0] == pytest.approx(20 + 10 * math.log10(2))
    assert [cell for line in cells for cell in line][1:] == [math.inf] * 7


def test_noise_in_decibels():
    assert [decibels(noise) for noise in (0.01, 1, 0, math.inf)] == [20, 0, math.inf, -math.inf]
