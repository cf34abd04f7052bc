"""Which layers an ignore list leaves unquantized."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.native.errors import SkipDecisionError
from backends.native.quantization.skip import DEFAULT_FUSED_FALLBACK, is_layer_skipped, names_module

LAYER = "model.layers.0"
QWEN3_5_PARTS = {"in_proj_ba": ["in_proj_b", "in_proj_a"], "in_proj_qkvz": ["in_proj_qkv", "in_proj_z"]}
names = st.lists(
    st.sampled_from(["mlp", "gate", "gate_up_proj", "q_proj", "layers", "1", "11"]), min_size=1, max_size=5
)


def skipped(name, ignored, mapping=None, fallback=DEFAULT_FUSED_FALLBACK):
    return is_layer_skipped(f"{LAYER}.{name}", ignored, mapping or {}, fallback)


def test_mlp_gate_does_not_skip_mlp_gate_up_proj():
    assert not skipped("mlp.gate_up_proj", [f"{LAYER}.mlp.gate"])
    assert not skipped("mlp.gate_up_proj", ["mlp.gate"], {"gate_up_proj": ["gate_up_proj"]})


def test_mlp_gate_skips_mlp_gate():
    assert skipped("mlp.gate", [f"{LAYER}.mlp.gate"])
    assert skipped("mlp.gate", ["mlp.gate"])


def test_layer_1_does_not_skip_layer_11():
    assert not is_layer_skipped("model.layers.11.mlp.gate", ["model.layers.1"], {}, {})


def test_a_module_around_the_layer_skips_it():
    assert skipped("self_attn.o_proj", [f"{LAYER}.self_attn"])
    assert skipped("self_attn.qkv_proj", [f"{LAYER}.self_attn"])


def test_a_fused_layer_is_skipped_by_its_names_on_disk_and_not_by_its_own():
    assert skipped("mlp.gate_up_proj", [f"{LAYER}.mlp.gate_proj", f"{LAYER}.mlp.up_proj"])
    assert not skipped("mlp.gate_up_proj", [f"{LAYER}.mlp.gate_up_proj"])


def test_a_whole_packed_projection_is_skipped_by_its_own_name():
    assert skipped("linear_attn.in_proj_ba", [f"{LAYER}.linear_attn.in_proj_ba"])


def test_a_fallback_with_another_architectures_parts_loses_the_packed_projection():
    ignored = [f"{LAYER}.linear_attn.in_proj_ba"]
    assert not skipped("linear_attn.in_proj_ba", ignored, fallback=QWEN3_5_PARTS)


def test_the_models_mapping_wins_over_the_fallback():
    ignored = [f"{LAYER}.linear_attn.in_proj_ba"]
    assert skipped("linear_attn.in_proj_ba", ignored, {"in_proj_ba": ["in_proj_ba"]}, QWEN3_5_PARTS)


def test_a_half_skipped_fused_layer_is_an_error_that_names_both_halves():
    with pytest.raises(
        SkipDecisionError, match=r"names model.layers.0.mlp.up_proj and not model.layers.0.mlp.gate_proj"
    ):
        skipped("mlp.gate_up_proj", [f"{LAYER}.mlp.up_proj"])


def test_a_name_without_a_parent_is_compared_as_it_is():
    assert is_layer_skipped("lm_head", ["lm_head"], {}, {})
    assert not is_layer_skipped("head", ["lm_head"], {}, {})


@given(names, names)
def test_an_entry_names_exactly_the_modules_that_contain_its_segments_in_a_row(entry, name):
    windows = [name[start : start + len(entry)] for start in range(len(name) - len(entry) + 1)]
    assert names_module(".".join(entry), ".".join(name)) == (entry in windows)


@given(names, st.lists(names, max_size=4))
def test_adding_an_entry_never_unskips_a_layer_that_is_not_fused(name, entries):
    prefix, ignored = ".".join(name), [".".join(entry) for entry in entries]
    decisions = [is_layer_skipped(prefix, ignored[:count], {}, {}) for count in range(len(ignored) + 1)]
    assert decisions == sorted(decisions)


@given(names, st.lists(names, max_size=4))
def test_a_name_mapped_to_itself_is_decided_as_if_it_were_not_fused(name, entries):
    prefix, ignored = ".".join(name), [".".join(entry) for entry in entries]
    assert is_layer_skipped(prefix, ignored, {name[-1]: [name[-1]]}, {}) == is_layer_skipped(prefix, ignored, {}, {})
