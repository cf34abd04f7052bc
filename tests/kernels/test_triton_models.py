"""Whole models on triton kernels, beside the same models on the reference."""

from __future__ import annotations

import importlib

import pytest
import torch

from backends.native.checkpoint.synthesize import write_checkpoint
from backends.native.cli import main
from backends.native.loader import LoadOptions, load

pytest.importorskip("triton")
TINIEST = {
    "num_hidden_layers": 2,
    "full_attention_interval": 2,
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_num_value_heads": 4,
    "linear_value_head_dim": 8,
    "num_experts": 4,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}
PROMPT, DECODED, BOUND = [3, 41, 7, 19, 5], [11, 23], 1e-5


@pytest.fixture(params=["qwen3_next", "qwen3_5", "qwen3_5_moe"])
def folder(request, tmp_path):
    """The tiniest checkpoint of an architecture that has a gated delta net."""
    config = importlib.import_module(f"backends.native.models.{request.param}").tiny_config()
    text = config.get("text_config", config)
    text |= {name: value for name, value in TINIEST.items() if name in text}
    return write_checkpoint(tmp_path, config, seed=0, max_file_bytes=1 << 20)


def logits(folder, kernels, device):
    """Of a prefill and of two decode steps that go on from its caches."""
    loaded = load(folder, LoadOptions(dtype=torch.float32, kernels=kernels, device=device))
    model, cache, start = loaded.models[0], loaded.models[0].make_cache(), 0
    for ids in (PROMPT, *([token] for token in DECODED)):
        tokens, positions = torch.tensor(ids), torch.arange(start, start + len(ids))
        yield model(tokens.to(device), positions.to(device), cache).cpu()
        start += len(ids)


def test_the_logits_of_a_model_equal_those_of_the_reference(folder, device, launched):
    found, expected = (torch.cat(list(logits(folder, kind, device))) for kind in ("triton", "reference"))
    assert ((found - expected).norm() / expected.norm()).item() <= BOUND
    assert {
        "rms_norm_kernel",
        "rms_norm_gated_kernel",
        "rotary_kernel",
        "causal_conv1d_kernel",
        "within_chunks_kernel",
        "across_chunks_kernel",
        "gated_delta_rule_kernel",
    } <= launched


@pytest.fixture
def launched(device, monkeypatch):
    """The names of the kernels that were launched."""
    names = set()
    runtime = importlib.import_module("triton.runtime.interpreter" if device == "cpu" else "triton.runtime.jit")
    kind = runtime.InterpretedFunction if device == "cpu" else runtime.JITFunction
    original = kind.run

    def run(kernel, *arguments, **named):
        names.add(kernel.fn.__name__)
        return original(kernel, *arguments, **named)

    monkeypatch.setattr(kind, "run", run)
    return names


@pytest.mark.parametrize("folder", ["qwen3_next"], indirect=True)
def test_the_command_generates_the_tokens_of_the_reference(folder, device, capsys):
    def printed(kernels):
        prompt = ["--prompt-ids", ",".join(map(str, PROMPT)), "--max-new-tokens", "2"]
        assert (
            main(
                [str(folder), "--device", device, "--kernels", kernels, "--dtype", "float32", "--threads", "1", *prompt]
            )
            == 0
        )
        return capsys.readouterr().out

    assert printed("triton") == printed("reference")
