"""Packed integers and float4: the inverse of packing, and every word and value against plain arithmetic."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backends.native.kernels.reference.awq_linear import OUTPUT_ORDER, dequantize_awq
from backends.native.kernels.reference.gptq_linear import dequantize_gptq
from backends.native.kernels.reference.mxfp4_linear import mxfp4_floats, mxfp4_groups
from backends.native.kernels.reference.nvfp4_linear import nvfp4_floats, nvfp4_groups
from backends.native.kernels.reference.packing import (
    E2M1_VALUES,
    e2m1_codes,
    e2m1_floats,
    e8m0_floats,
    pack_int32,
    pack_nibbles,
    unpack_int32,
    unpack_nibbles,
)
from backends.native.quantization.gptq import GPTQWeight

GROUP = 32


def integers(shape, bits, seed):
    return torch.randint(0, 2**bits, shape, generator=torch.Generator().manual_seed(seed))


@given(st.sampled_from([2, 4, 8]), st.integers(0, 1), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**31))
def test_unpacking_gives_back_what_was_packed(bits, dim, words, others, seed):
    shape = [others, others]
    shape[dim] = words * (32 // bits)
    values = integers(shape, bits, seed)
    packed = pack_int32(values, bits, dim)
    assert packed.dtype == torch.int32
    assert packed.shape[dim] == words
    assert torch.equal(unpack_int32(packed, bits, dim), values.int())


@given(st.permutations(range(8)), st.integers(0, 2**31))
def test_any_order_within_a_word_is_undone(order, seed):
    values = integers((3, 16), 4, seed)
    assert torch.equal(unpack_int32(pack_int32(values, 4, 1, order), 4, 1, order), values.int())


@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 2**31))
def test_nibbles_come_back_first_in_the_low_one(rows, pairs, seed):
    codes = integers((rows, 2 * pairs), 4, seed)
    packed = pack_nibbles(codes)
    assert torch.equal(unpack_nibbles(packed), codes)
    assert packed[0, 0].item() == codes[0, 0].item() + 16 * codes[0, 1].item()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_word_holds_its_first_value_in_the_lowest_bits(bits):
    values = integers((2, 32 // bits), bits, 5)
    for row, packed in zip(values.tolist(), pack_int32(values, bits, 1)[:, 0].tolist(), strict=True):
        assert packed % 2**32 == sum(value << (bits * place) for place, value in enumerate(row))


def nearest_float4(x: float) -> float:
    """The nearest value, of two as near the one with an even code."""
    magnitude = min(range(8), key=lambda code: (abs(abs(x) - E2M1_VALUES[code]), code % 2))
    return math.copysign(E2M1_VALUES[magnitude], x)


@given(st.floats(-20, 20, width=32))
def test_float4_is_the_nearest_value(x):
    assert e2m1_floats(e2m1_codes(torch.tensor([x]))).item() == nearest_float4(x)


def test_middles_between_two_float4_go_to_the_even_one():
    middles = [(a + b) / 2 for a, b in itertools.pairwise(E2M1_VALUES)]
    found = e2m1_floats(e2m1_codes(torch.tensor(middles))).tolist()
    assert found == [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0]


def test_every_exponent_is_its_power_of_two_and_the_last_is_nan():
    powers = e8m0_floats(torch.arange(256, dtype=torch.uint8))
    assert powers[:255].tolist() == [2.0 ** (exponent - 127) for exponent in range(255)]
    assert powers[255].isnan()


@given(st.integers(0, 2**31), st.floats(-30, 30))
def test_mxfp4_moves_a_value_by_at_most_a_quarter_of_its_groups_absmax(seed, exponent):
    x = torch.randn(2, 2 * GROUP, generator=torch.Generator().manual_seed(seed)) * 2**exponent
    codes, exponents = mxfp4_groups(x)
    absmax = x.view(2, 2, GROUP).abs().amax(2).repeat_interleave(GROUP, 1)
    assert ((mxfp4_floats(codes, exponents) - x).abs() <= absmax / 4).all()


@given(st.integers(0, 2**31))
def test_nvfp4_moves_a_value_by_at_most_a_sixth_of_its_groups_absmax(seed):
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(seed))
    unit = x.abs().amax() / (6 * 448)
    codes, scale = nvfp4_groups(x, unit)
    absmax = x.view(4, 4, 16).abs().amax(2).repeat_interleave(16, 1)
    assert ((nvfp4_floats(codes, scale, unit) - x).abs() <= absmax * 1.07 / 6 + unit).all()


def test_a_group_of_zeros_stays_zero():
    zeros = torch.zeros(1, 32)
    assert not mxfp4_floats(*mxfp4_groups(zeros)).any()
    assert not nvfp4_floats(*nvfp4_groups(zeros, torch.tensor(1e-3)), torch.tensor(1e-3)).any()


def words(shape, seed):
    return torch.randint(-(2**31), 2**31, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int64).int()


def test_awq_is_read_as_its_kernels_read_it():
    rows, columns, size = 16, 24, 8
    qweight, qzeros = words((rows, columns // 8), 1), words((rows // size, columns // 8), 2)
    scales = torch.rand(rows // size, columns).half()
    place_of = {output: place for place, output in enumerate([0, 2, 4, 6, 1, 3, 5, 7])}
    expected = np.zeros((columns, rows), dtype=np.float32)
    for k in range(rows):
        for n in range(columns):
            shift = 4 * place_of[n % 8]
            code = (int(qweight[k, n // 8]) % 2**32 >> shift) & 15
            zero = (int(qzeros[k // size, n // 8]) % 2**32 >> shift) & 15
            expected[n, k] = (code - zero) * np.float32(scales[k // size, n])
    assert OUTPUT_ORDER == (0, 2, 4, 6, 1, 3, 5, 7)
    assert np.array_equal(dequantize_awq(qweight, qzeros, scales.float()).numpy(), expected)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zero_shift", [0, 1])
@pytest.mark.parametrize("is_reordered", [False, True])
def test_gptq_is_read_as_its_kernels_read_it(bits, zero_shift, is_reordered):
    per_word = 32 // bits
    rows, columns, size = 2 * per_word, per_word, per_word // 2
    groups = rows // size
    qweight, qzeros = words((rows // per_word, columns), 3), words((groups, columns // per_word), 4)
    scales = torch.rand(groups, columns).half()
    g_idx = torch.randint(0, groups, (rows,), generator=torch.Generator().manual_seed(5)) if is_reordered else None
    expected = np.zeros((columns, rows), dtype=np.float32)
    for k in range(rows):
        group = int(g_idx[k]) if is_reordered else k // size
        for n in range(columns):
            code = (int(qweight[k // per_word, n]) % 2**32 >> (bits * (k % per_word))) & (2**bits - 1)
            zero = (int(qzeros[group, n // per_word]) % 2**32 >> (bits * (n % per_word))) & (2**bits - 1)
            zero = (zero + zero_shift) & (2**bits - 1)
            expected[n, k] = (code - zero) * np.float32(scales[group, n])
    found = dequantize_gptq(qweight, qzeros, scales.float(), g_idx, bits, zero_shift)
    assert np.array_equal(found.numpy(), expected)


def test_a_symmetric_gptq_checkpoint_stores_seven_for_a_zero_of_eight():
    stored = GPTQWeight(4, 32).quantize(torch.randn(8, 64))
    assert set(stored["qzeros"].flatten().tolist()) == {0x77777777}
    assert stored["g_idx"].tolist() == [0] * 32 + [1] * 32


def test_groups_in_any_order_are_as_large_as_the_others_and_filled_by_the_largest_columns():
    weight = torch.randn(8, 64) * torch.linspace(0.1, 2, 64)
    g_idx = GPTQWeight(4, 16, is_reordered=True).quantize(weight)["g_idx"]
    assert g_idx.bincount().tolist() == [16] * 4
    norms = weight.norm(dim=0)
    assert all(norms[g_idx == group].min() >= norms[g_idx == group + 1].max() for group in range(3))


def test_groups_by_the_size_of_columns_lose_less_of_columns_of_different_sizes():
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    weight[:, ::4] *= 20
    errors = []
    for is_reordered in (False, True):
        stored = GPTQWeight(4, 16, is_reordered=is_reordered)
        errors.append((stored.dequantize(stored.quantize(weight)) - weight).norm())
    assert errors[1] < errors[0]
