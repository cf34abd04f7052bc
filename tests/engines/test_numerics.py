"""Statistics of parameters and activations: against numbers decoded by hand, and when and of what they are taken."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file

from inspectors.numerics import is_scale
from inspectors.probe.numbers import NOT_APPLICABLE, summarize


def float_value(bits, exponent_bits, mantissa_bits, kind):
    """The number that a code of this format stands for, from its definition: `kind` says what its ends are."""
    exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1)
    mantissa = bits & ((1 << mantissa_bits) - 1)
    sign = -1.0 if bits >> (exponent_bits + mantissa_bits) else 1.0
    bias = (1 << (exponent_bits - 1)) - 1
    is_last = exponent == (1 << exponent_bits) - 1
    if kind == "ieee" and is_last:
        return math.nan if mantissa else sign * math.inf
    if kind == "finite" and is_last and mantissa == (1 << mantissa_bits) - 1:
        return math.nan
    if not exponent:
        return sign * mantissa * 2.0 ** (1 - bias - mantissa_bits)
    return sign * (1 + mantissa / (1 << mantissa_bits)) * 2.0 ** (exponent - bias)


FORMATS = {
    "float8_e4m3fn": (4, 3, "finite", 2.0**-6, 448.0),
    "float8_e5m2": (5, 2, "ieee", 2.0**-14, 57344.0),
    "float16": (5, 10, "ieee", 2.0**-14, 65504.0),
    "bfloat16": (8, 7, "ieee", 2.0**-126, float.fromhex("0x1.fep127")),
}


def codes_of(dtype, count=None):
    """Random codes of a dtype with the odd ones among them, as a tensor and as ints."""
    bits = 8 * dtype.itemsize
    carrier = torch.uint8 if bits == 8 else torch.int16
    count = count or 5000
    codes = torch.randint(0, 1 << bits, (count,), generator=torch.Generator().manual_seed(bits))
    signed = codes if bits == 8 else codes - (codes >= 1 << 15).long() * (1 << 16)
    return signed.to(carrier).view(dtype), codes.tolist()


def expected(values, smallest_normal, largest):
    finite = [v for v in values if math.isfinite(v)]
    count = len(values)
    return {
        "minimum": min(finite), "maximum": max(finite), "absmax": max(map(abs, finite)),
        "mean": math.fsum(finite) / len(finite), "rms": math.sqrt(math.fsum(v * v for v in finite) / len(finite)),
        "nan_count": sum(map(math.isnan, values)), "inf_count": sum(map(math.isinf, values)),
        "zero_fraction": sum(v == 0 for v in values) / count,
        "subnormal_fraction": sum(0 < abs(v) < smallest_normal for v in values) / count,
        "saturated_fraction": sum(abs(v) == largest for v in values) / count,
    }  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_statistics_of_floats_are_those_of_their_codes_by_definition(name):
    exponent_bits, mantissa_bits, kind, smallest_normal, largest = FORMATS[name]
    tensor, codes = codes_of(getattr(torch, name))
    values = [float_value(code, exponent_bits, mantissa_bits, kind) for code in codes]
    said = summarize(tensor)
    for fact, value in expected(values, smallest_normal, largest).items():
        assert getattr(said, fact) == pytest.approx(value, rel=1e-6), fact
    assert said.subnormal_fraction > 0


def test_statistics_do_not_depend_on_where_a_cache_full_ends_or_how_a_tensor_lies():
    values = torch.randn(700, 1000, generator=torch.Generator().manual_seed(3))
    values[0, 0], values[-1, -1], values[350, 7] = torch.finfo(torch.float32).max, 1e-39, 0.0
    wide = values.double()
    for tensor in (values, values.t(), values.t().contiguous().t(), values[:, None].expand(700, 2, 1000)):
        said = summarize(tensor)
        assert said.mean == pytest.approx(float(wide.mean()), rel=1e-6, abs=1e-30)
        assert said.rms == pytest.approx(float(wide.square().mean().sqrt()), rel=1e-6)
        assert said.subnormal_fraction == pytest.approx(1 / 700_000)
        assert said.saturated_fraction == pytest.approx(1 / 700_000)
        assert said.zero_fraction == pytest.approx(1 / 700_000)
        assert (said.minimum, said.maximum) == (float(wide.min()), float(wide.max()))


def test_integers_saturate_at_both_ends_and_have_no_subnormals():
    said = summarize(torch.tensor([-128, 127, 127, 0, 5, -127], dtype=torch.int8))
    assert said.saturated_fraction == 3 / 6
    assert said.zero_fraction == 1 / 6
    assert said.subnormal_fraction == NOT_APPLICABLE
    assert (said.minimum, said.maximum, said.mean) == (-128.0, 127.0, pytest.approx(4 / 6))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float4_e2m1fn_x2])
def test_what_may_hold_packed_numbers_has_no_subnormal_and_no_saturated_ones(dtype):
    said = summarize(torch.arange(64, dtype=torch.uint8).view(dtype))
    assert (said.subnormal_fraction, said.saturated_fraction) == (NOT_APPLICABLE, NOT_APPLICABLE)


def test_scales_of_powers_of_two_are_read_as_numbers():
    said = summarize(torch.tensor([127, 126, 130, 255], dtype=torch.uint8).view(torch.float8_e8m0fnu))
    assert (said.minimum, said.maximum, said.nan_count, said.zero_fraction) == (0.5, 8.0, 1, 0.0)


def test_a_tensor_without_elements_or_finite_ones_has_no_magnitude():
    assert summarize(torch.empty(0)).absmax == 0.0
    nothing = summarize(torch.full((3,), math.nan))
    assert (nothing.absmax, nothing.nan_count, nothing.rms) == (0.0, 3, 0.0)


@pytest.mark.parametrize(
    ("name", "dtype", "is_one"),
    [
        ("a.weight_scale_inv", torch.float32, True), ("a.weight_scale", torch.float8_e4m3fn, True),
        ("a.scales", torch.float16, True), ("a.weight_scale", torch.uint8, True),
        ("a.scale.weight", torch.float32, False),
        ("a.weight", torch.float32, False), ("a.scale_shape", torch.int64, False),
    ],
)  # fmt: skip
def test_a_scale_is_told_by_its_own_name_and_its_dtype(name, dtype, is_one):
    assert is_scale(name, torch.zeros(2, dtype=dtype)) is is_one


@pytest.fixture(scope="module")
def recorded(run_host, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    run = run_host("tensors", tp=1, save=str(folder / "parameters.safetensors"))
    assert run.code == 0, run.err
    assert run.of("inspector.faulted") == []
    return run, load_file(folder / "parameters.safetensors")


def wide_facts(tensor):
    wide = tensor.double()
    return {"absmax": float(wide.abs().max()), "mean": float(wide.mean()), "rms": float(wide.square().mean().sqrt()),
            "minimum": float(wide.min()), "maximum": float(wide.max()),
            "zero_fraction": float((wide == 0).double().mean())}  # fmt: skip


def test_every_parameter_is_summarized_once_after_the_load_and_once_when_its_layer_was_processed(recorded):
    run, kept = recorded
    values = [value for value in run.of("value.summarized") if value.stage != "forward.run"]
    names = {name.partition("/")[2] for name in kept}
    after = {stage: Counter(v.body["parameter"] for v in values if v.stage == stage)
             for stage in ("weight.map", "weights.process")}  # fmt: skip
    assert after["weight.map"] == dict.fromkeys(names, 1)
    processed = {event.body["module"] for event in run.of("weights.processed")}
    assert after["weights.process"] == {name: 1 for name in names if name.rpartition(".")[0] in processed}
    assert {v.stage for v in values} == {"weight.map", "weights.process"}


def test_the_statistics_of_a_parameter_are_those_of_what_the_model_holds(recorded):
    run, kept = recorded
    last = {value.body["parameter"]: value.body for value in run.of("value.summarized") if value.body["parameter"]}
    assert len(last) == len(kept)
    for name, tensor in kept.items():
        said = last[name.partition("/")[2]]
        assert {fact: said[fact] for fact in wide_facts(tensor)} == pytest.approx(
            wide_facts(tensor), rel=1e-5, abs=1e-9
        )
        assert (said["dtype"], tuple(said["shape"])) == (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        assert said["role"] == ("scale" if name.endswith("scale_inv") else "parameter")


def test_the_statistics_of_activations_are_those_of_the_tensors_that_were_kept(recorded):
    run, _ = recorded
    said = {(v.body["module"], v.body["role"], v.body["index"]): v.body for v in run.of("value.summarized")
            if v.stage == "forward.run"}  # fmt: skip
    files = {path.name: load_file(path) for path in (run.session / "tensors").glob("*.safetensors")}
    kept = {(k.body["module"], k.body["role"], k.body["index"]): k.body for k in run.of("tensor.kept")}
    assert set(said) == set(kept)
    for key, body in kept.items():
        facts = wide_facts(files[body["file"]][body["name"]])
        assert {fact: said[key][fact] for fact in facts} == pytest.approx(facts, rel=1e-5, abs=1e-9), key
    assert ("model.layers.0.mlp.gate", "output", 0) in said
