"""Which kind of kernel a layer gets, and that every other kind has a reason why not."""

from __future__ import annotations

import pytest

from backends.native.kernels import choice
from backends.native.kernels.choice import KINDS, REFERENCE, Kinds, choose, kinds_on

OPERATIONS = ("rms_norm", "fp8_block_linear", "int8_linear", "causal_attention", "int8_moe")


def reasons(chosen):
    return dict(one.split(": ", 1) for one in chosen.refused)


@pytest.mark.parametrize("op", OPERATIONS)
@pytest.mark.parametrize("preferred", [(), ("compiled",), ("npu", "triton"), ("triton", "compiled", "npu")])
def test_every_kind_is_either_chosen_or_refused_with_a_reason(op, preferred):
    chosen = choose(op, kinds_on("cpu", preferred), "model.layers.0.x")
    assert sorted([chosen.kind, *reasons(chosen)]) == sorted(KINDS)
    assert all(reasons(chosen).values())
    assert (chosen.op, chosen.module) == (op, "model.layers.0.x")


def test_the_reason_is_the_one_that_holds(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(choice, "why_not", lambda kind, device: f"{kind} not on {device}" if kind == "npu" else None)
    kinds = kinds_on("cpu", ("compiled", "npu"))
    said = reasons(choose("fp8_block_linear", kinds))
    assert said == {
        "npu": "it has no fp8_block_linear", "reference": "compiled comes before it",
        "triton": "it can run on cpu, which does not prefer it",
    }  # fmt: skip
    assert reasons(choose("int8_linear", kinds))["npu"] == "npu not on cpu"


def test_what_was_asked_for_is_the_reason_against_all_others():
    kinds = kinds_on("cpu", ("compiled",), wanted=REFERENCE)
    assert reasons(choose("fp8_block_linear", kinds))["compiled"] == "reference was asked for"
    assert reasons(choose("fp8_block_linear", ("reference",)))["compiled"] == "this load was not given it"


def test_an_operation_that_only_the_reference_has_may_be_composed_of_others():
    chosen = choose("int8_moe", Kinds.of(("compiled", REFERENCE), {}), is_reference_wanted=False)
    assert chosen.kind == ""
    assert reasons(chosen)["reference"] == "the layer composes this of its other kernels"
    assert choice.alternative("int8_moe", (REFERENCE,)) is None
