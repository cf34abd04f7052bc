"""GGUF files of every architecture against the same model by other ways: safetensors, F32, ranks, a device."""

from __future__ import annotations

import importlib.util
import logging
import re
import sys
from pathlib import Path

import pytest
import torch

from backends.native.checkpoint.gguf_synthesize import all_of, mixed_types, write_gguf
from backends.native.checkpoint.index import open_checkpoint
from backends.native.checkpoint.reader import iterate_weights
from backends.native.checkpoint.synthesize import write_checkpoint
from backends.native.config import read_config
from backends.native.errors import LoadError, ShapeError
from backends.native.loader import LoadOptions, load
from backends.native.registry import quantization_config


def _checkpoints():
    path = Path(__file__).with_name("gguf_checkpoints.py")
    spec = importlib.util.spec_from_file_location("loadscope_tests_gguf_checkpoints", path)
    module = sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


tiny = _checkpoints()
ARCHITECTURES, MIXES = tiny.ARCHITECTURES, tiny.MIXES
dequantized_twin, gguf_config, logits = tiny.dequantized_twin, tiny.gguf_config, tiny.logits


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_file_in_f32_is_the_published_checkpoint(tmp_path, architecture):
    config = gguf_config(architecture)
    published = write_checkpoint(tmp_path / "published", config, seed=1, max_file_bytes=1 << 30)
    converted = write_gguf(tmp_path / "model.gguf", config, seed=1, types=all_of("F32"))
    assert relative_error(logits(converted), logits(published)) < 1e-5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_blocks_give_what_their_dequantized_twin_gives_on_one_rank_and_on_several(tmp_path, architecture):
    config = gguf_config(architecture)
    file = write_gguf(tmp_path / "model.gguf", config, seed=1, types=mixed_types)
    expected = logits(dequantized_twin(file, tmp_path / "twin.gguf", config))
    for ranks in (1, 2, 4):
        assert relative_error(logits(file, ranks), expected) < 2e-5, ranks


@pytest.mark.parametrize(("architecture", "mix"), [("llama", "fused"), ("qwen3_5_moe", "fused"), ("llama", "BF16")])
def test_types_may_differ_inside_a_fused_layer(tmp_path, architecture, mix):
    config = gguf_config(architecture)
    file = write_gguf(tmp_path / "model.gguf", config, seed=1, types=MIXES[mix])
    expected = logits(dequantized_twin(file, tmp_path / "twin.gguf", config))
    assert relative_error(logits(file, 2), expected) < 2e-5


def test_a_model_of_each_kind_of_layer_keeps_its_blocks_as_they_were_stored(tmp_path):
    file = write_gguf(tmp_path / "model.gguf", gguf_config("qwen3_moe"), seed=1, types=MIXES["fused"])
    layer = load(file).models[0].model.layers[0]
    stored = dict(iterate_weights(open_checkpoint(file)))
    parts = [stored[f"blk.0.attn_{part}.weight"].contiguous().view(torch.uint8).flatten() for part in "qkv"]
    assert torch.equal(layer.self_attn.qkv_proj.qweight, torch.cat(parts))
    gates, ups = stored["blk.0.ffn_gate_exps.weight"], stored["blk.0.ffn_up_exps.weight"]
    in_bytes = (part.contiguous().view(torch.uint8) for part in (gates, ups))
    gates, ups = (part.view(4, -1) for part in in_bytes)
    per_expert = [torch.cat((gate, up)) for gate, up in zip(gates, ups, strict=True)]
    assert torch.equal(layer.mlp.experts.w13_qweight.view(4, -1), torch.stack(per_expert))
    assert torch.equal(layer.mlp.experts.w2_qweight, stored["blk.0.ffn_down_exps.weight"])
    assert layer.self_attn.qkv_proj.qweight_type.tolist() == [12, 14, 1]


@pytest.mark.parametrize("architecture", ["qwen3", "qwen3_next"])
def test_a_head_that_is_tied_to_the_embedding_is_held_once(tmp_path, architecture):
    config = gguf_config(architecture, tie_word_embeddings=True)
    file = write_gguf(tmp_path / "model.gguf", config, seed=1)
    assert "output.weight" not in {entry.name for entry in open_checkpoint(file).entries()}
    model = load(file, LoadOptions(dtype=torch.float32)).models[0]
    assert model.lm_head.qweight is model.decoder.embed_tokens.qweight
    twin = dequantized_twin(file, tmp_path / "twin.gguf", config)
    assert relative_error(logits(file, 2), logits(twin)) < 2e-5
    # The head gets what the embedding was dequantized to.
    assert relative_error(logits(file, device="simulated-npu"), logits(twin)) < 2e-5


def test_the_type_of_every_tensor_comes_before_its_blocks(tmp_path):
    file = write_gguf(tmp_path / "model.gguf", gguf_config("qwen3_5_moe"), seed=1)
    method = quantization_config(read_config(file), {}, {})
    names = [name for name, _ in method.model_weights(iterate_weights(open_checkpoint(file)))]
    blocks = [name for name in names if name.endswith(".qweight")]
    assert len(blocks) > 20
    assert all(names.index(f"{name}_type") < names.index(name) for name in blocks)
    assert "model.layers.0.mlp.experts.3.up_proj.qweight" in blocks


def test_blocks_that_come_before_their_type_are_named(tmp_path):
    file = write_gguf(tmp_path / "model.gguf", gguf_config("qwen3"), seed=1)
    model = load(file).models[0]
    layer = model.model.layers[0].self_attn.qkv_proj
    layer.quant_method.blocks.types.clear()
    with pytest.raises(LoadError, match=r"qkv_proj.qweight: the blocks of 0 came before their type"):
        layer.qweight.weight_loader(layer.qweight, torch.zeros(512, 144, dtype=torch.uint8), "q")


def test_parts_that_come_before_all_types_are_held_aside_until_those_are_known(tmp_path):
    file = write_gguf(tmp_path / "model.gguf", gguf_config("qwen3"), seed=1)
    method = quantization_config(read_config(file), {}, {})
    pairs = list(method.model_weights(iterate_weights(open_checkpoint(file))))
    types = dict(pair for pair in pairs if pair[0].endswith("qweight_type"))
    by_turns = []
    for name, tensor in pairs:
        if name not in types:
            by_turns += [(f"{name}_type", types[f"{name}_type"])] if f"{name}_type" in types else []
            by_turns.append((name, tensor))
    first, second = (load(file, LoadOptions(dtype=torch.float32)).models[0] for _ in range(2))
    for parameter in second.parameters():
        parameter.data.zero_()
    for module in second.modules():
        if hasattr(module, "quant_method") and hasattr(module.quant_method, "blocks"):
            module.quant_method.blocks.types.clear()
    second.load_weights(by_turns)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_rank_that_would_cut_a_block_is_told_which_tensor_and_what_to_do(tmp_path):
    file = write_gguf(tmp_path / "model.gguf", gguf_config("qwen3"), seed=1, types=all_of("Q4_K"))
    named = r"o_proj.qweight is Q4_K, stored in blocks of 256 inputs, and a rank holds 128"
    with pytest.raises(ShapeError, match=named):
        load(file, LoadOptions(tp_size=4))


def test_a_file_without_one_tensor_of_a_fused_layer_says_what_is_missing(tmp_path):
    file = write_gguf(tmp_path / "model.gguf", gguf_config("qwen3_moe"), seed=1)
    content = file.read_bytes()
    for name in (b"blk.1.attn_k.weight", b"blk.1.ffn_up_exps.weight"):
        content = content.replace(name, name.replace(b"blk.1", b"xxx.1"))
    file.write_bytes(content)
    with pytest.raises(LoadError, match="never filled") as raised:
        load(file)
    assert "layers.1.self_attn.qkv_proj.qweight (missing k)" in raised.value.what
    assert re.search(r"layers.1.mlp.experts.w13_qweight \(missing w3 of expert 0, w3 of expert 1", raised.value.what)


@pytest.mark.parametrize("architecture", ["qwen3_moe", "qwen3_5"])
def test_a_device_without_kernels_for_blocks_gets_the_dequantized_weights_once(tmp_path, architecture, caplog):
    config = gguf_config(architecture)
    file = write_gguf(tmp_path / "model.gguf", config, seed=1, types=MIXES["fused"])
    expected = logits(file)
    with caplog.at_level(logging.INFO):
        found = logits(file, 2, device="simulated-npu")
    assert relative_error(found, expected) < 2e-5
    assert re.search(r"reads no blocks: after the load about [\d.]+ MiB of them a rank become [\d.]+ MiB", caplog.text)
    loaded = load(file, LoadOptions(dtype=torch.bfloat16, device="simulated-npu"))
    assert not [name for name, _ in loaded.models[0].named_parameters() if "qweight" in name]
    assert {p.dtype for name, p in loaded.models[0].named_parameters() if "_proj" in name} == {torch.bfloat16}


def test_the_forecast_of_memory_counts_what_the_dequantized_weights_take(tmp_path, caplog):
    file = write_gguf(tmp_path / "model.gguf", gguf_config("qwen3"), seed=1, types=all_of("Q8_0"))
    with caplog.at_level(logging.INFO):
        loaded = load(file, LoadOptions(dtype=torch.float16, device="simulated-npu"))
    linear = sum(p.numel() for name, p in loaded.models[0].named_parameters() if "_proj" in name)
    vocabulary = 2 * 500 * 256
    assert f"become {(linear + vocabulary) * 2 / 2**20:,.1f} MiB of float16" in caplog.text


def test_in_bfloat16_a_model_runs_from_its_blocks(tmp_path):
    file = write_gguf(tmp_path / "model.gguf", gguf_config("qwen3"), seed=1)
    found, exact = logits(file, dtype=torch.bfloat16), logits(file)
    assert torch.nn.functional.cosine_similarity(found.flatten(), exact.flatten(), 0) > 0.99
