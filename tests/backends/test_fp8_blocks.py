"""FP8 with block scales: the quantizer, the block rule, and the skip decision that breaks it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backends.native.checkpoint.synthesize import write_checkpoint
from backends.native.config import ModelConfig
from backends.native.errors import ConfigError, ShapeError
from backends.native.kernels.reference.fp8_block_linear import dequantize_blocks
from backends.native.kernels.reference.fp8_linear import E4M3_MAX
from backends.native.loader import LoadOptions, load
from backends.native.models import qwen3_next
from backends.native.quantization.formats.float8_blocks import quantize_blocks, require_whole_blocks
from backends.native.quantization.skip import is_layer_skipped
from backends.native.quantization.stored import WeightPart
from backends.native.registry import quantization_config

QWEN3_5_PARTS = {"in_proj_ba": ("in_proj_b", "in_proj_a"), "in_proj_qkvz": ("in_proj_qkv", "in_proj_z")}
E4M3_HALF_STEP = 2**-4


def methods_by_name(model):
    return {
        name: type(layer.quant_method).__name__
        for name, layer in model.named_modules()
        if hasattr(layer, "quant_method")
    }


@given(
    st.integers(1, 9), st.integers(1, 9), st.tuples(st.integers(1, 5), st.integers(1, 5)), st.integers(0, 2**31)
)  # fmt: skip
def test_quantizing_moves_a_value_by_at_most_half_a_step_of_its_block(rows, columns, block, seed):
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    quantized, scale = quantize_blocks(weight, block)
    assert scale.shape == (-(-rows // block[0]), -(-columns // block[1]))
    error = (dequantize_blocks(quantized, scale, block) - weight).abs()
    for row in range(rows):
        for column in range(columns):
            block_scale = scale[row // block[0], column // block[1]].item()
            # Below the smallest normal number, 2**-6, the step is absolute.
            bound = max(weight[row, column].abs().item() * E4M3_HALF_STEP, block_scale * 2**-10)
            assert error[row, column] <= bound * 1.0001


def test_the_largest_value_of_a_block_becomes_the_largest_e4m3_value():
    quantized, scale = quantize_blocks(torch.tensor([[1.0, -7.0], [0.5, 2.0]]), (2, 2))
    assert quantized.float().abs().max() == E4M3_MAX
    assert scale.item() == pytest.approx(7 / 448)


def test_a_block_of_zeros_stays_zero():
    quantized, scale = quantize_blocks(torch.zeros(2, 2), (2, 2))
    assert not dequantize_blocks(quantized, scale, (2, 2)).any()


BLOCK_CASES = {
    "input_size_per_partition = 64 is not divisible by weight quantization block_k = 128": (256, 64, 256, [256]),
    "output_partition_size = 8 is not divisible by weight quantization block_n = 128": (256, 256, 64, [8, 8]),
    "output_partition_size = 64 is not divisible by weight quantization block_n = 128": (256, 256, 256, [64]),
}


@pytest.mark.parametrize(("message", "sizes"), BLOCK_CASES.items())
def test_a_block_that_would_be_cut_is_an_error_that_names_the_layer(message, sizes):
    part = WeightPart("model.layers.0.mlp.gate", *sizes, torch.float32)
    with pytest.raises(ShapeError, match=rf"Weight {message}. The layer is model.layers.0.mlp.gate."):
        require_whole_blocks(part, (128, 128))


def test_a_whole_layer_may_end_in_a_partial_block():
    require_whole_blocks(WeightPart("gate", 64, 64, 8, (8,), torch.float32), (128, 128))


def test_the_published_ignore_list_leaves_packed_projections_and_gates_in_the_models_dtype(tiny_fp8):
    loaded = load(tiny_fp8, LoadOptions(tp_size=4))
    methods = methods_by_name(loaded.models[0])
    layer = "model.layers.0"
    plain = {name for name, method in methods.items() if method.startswith("Unquantized")}
    assert {f"{layer}.linear_attn.in_proj_ba", f"{layer}.linear_attn.in_proj_qkvz", f"{layer}.mlp.gate"} <= plain
    assert methods[f"{layer}.mlp.experts"] == "Fp8MoEMethod"
    assert methods[f"{layer}.linear_attn.out_proj"] == methods["model.layers.3.self_attn.qkv_proj"] == "Fp8LinearMethod"
    assert {"lm_head", "model.embed_tokens"} <= plain
    assert all(not report.never_filled and not report.never_used for report in loaded.reports)


def test_a_fallback_with_parts_the_checkpoint_lacks_ends_in_a_divisibility_error(tiny_fp8):
    expected = (
        r"^Weight output_partition_size = 8 is not divisible by weight quantization block_n = 128\. "
        r"The layer is model\.layers\.0\.linear_attn\.in_proj_ba\.\n  try: check whether the ignore list"
    )
    with pytest.raises(ValueError, match=expected):
        load(tiny_fp8, LoadOptions(tp_size=4, fused_fallback=QWEN3_5_PARTS))


def test_the_repaired_fallback_loads_clean(tiny_fp8):
    repaired = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
    for report in load(tiny_fp8, LoadOptions(tp_size=4, fused_fallback=repaired)).reports:
        assert report.filled == report.parameters
        assert report.never_used == ()


@pytest.mark.parametrize("entry", ["experts", "experts.0"])
def test_experts_are_skipped_by_their_name_or_by_that_of_the_first(as_fp8, small_config, entry):
    config = as_fp8(small_config)
    quantization = config["quantization_config"]
    ignored = [*quantization["modules_to_not_convert"], f"model.layers.0.mlp.{entry}"]
    fields = config | {"quantization_config": quantization | {"modules_to_not_convert": ignored}}
    mapping = qwen3_next.Qwen3NextForCausalLM.packed_modules_mapping
    method = quantization_config(ModelConfig.from_fields(fields), mapping, {})
    skipped = {
        layer: is_layer_skipped(f"model.layers.{layer}.mlp.experts", method.ignored_layers, mapping, {})
        for layer in (0, 1)
    }
    assert skipped == {0: True, 1: False}


@pytest.mark.parametrize("key", ["modules_to_not_convert", "ignored_layers"])
def test_the_ignore_list_is_read_under_both_of_its_names(as_fp8, small_config, key):
    config = as_fp8(small_config)
    quantization = dict(config["quantization_config"])
    quantization[key] = quantization.pop("modules_to_not_convert")
    method = quantization_config(ModelConfig.from_fields(config | {"quantization_config": quantization}), {}, {})
    assert method.ignored_layers_key == key
    assert method.ignored_layers == tuple(quantization[key])


@pytest.mark.parametrize("block", [[128], [128, 0], [1, 2, 3], 128, ["128", "128"]])
def test_a_malformed_block_size_is_an_error_that_shows_it(block):
    fields = {"architectures": ["A"], "quantization_config": {"quant_method": "fp8", "weight_block_size": block}}
    with pytest.raises(ConfigError, match="weight_block_size is"):
        quantization_config(ModelConfig.from_fields(fields), {}, {})


def test_a_quantized_packed_projection_gives_the_same_logits_on_four_ranks(as_fp8, tmp_path):
    config = as_fp8(qwen3_next.tiny_config())
    quantization = config["quantization_config"]
    kept = [name for name in quantization["modules_to_not_convert"] if not name.endswith("in_proj_qkvz")]
    config["quantization_config"] = quantization | {"modules_to_not_convert": kept}
    write_checkpoint(tmp_path, config, seed=1, max_file_bytes=1 << 30)
    loads = {size: load(tmp_path, LoadOptions(tp_size=size, dtype=torch.float32)) for size in (1, 4)}
    whole = loads[1].models[0].model.layers[0].linear_attn.in_proj_qkvz
    parts = [model.model.layers[0].linear_attn.in_proj_qkvz for model in loads[4].models]
    for name, parameter in whole.named_parameters():
        together = torch.cat([part.get_parameter(name).data.float() for part in parts])
        assert torch.equal(together, parameter.float()), name
