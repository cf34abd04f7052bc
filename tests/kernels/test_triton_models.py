"""The triton kernels of whole models: compiled for GPUs that need not be there, and interpreted end to end."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from backends.native.checkpoint.synthesize import write_checkpoint
from backends.native.generate import generate
from backends.native.loader import LoadOptions, load

pytest.importorskip("triton")
COMPILER = Path(__file__).with_name("compile_without_gpu.py")
ROOT = Path(__file__).parents[2]
# What one program may take on the smallest GPU that has bfloat16 products.
SHARED_BYTES = 99 << 10
OPERATIONS = {
    "rms_norm",
    "rms_norm_gated",
    "rotary",
    "silu_and_mul",
    "topk_softmax",
    "causal_conv1d",
    "gated_delta_rule",
    "chunk_gated_delta_rule",
    "fused_qkvzba_split_reshape_cat",
}
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


def environment(**more):
    return {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | more


def test_every_kernel_compiles_for_a_gpu_that_need_not_be_there(tmp_path):
    found = subprocess.run(
        [sys.executable, COMPILER, "--small"],
        env=environment(TRITON_CACHE_DIR=str(tmp_path), PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr
    kernels = [line.split() for line in found.stdout.splitlines()]
    assert {name.partition(".")[0] for name, *_ in kernels} == OPERATIONS
    for name, *fields in kernels:
        taken = dict(zip(fields[::2], map(int, fields[1::2]), strict=True))
        assert taken["shared_bytes"] <= SHARED_BYTES, name
        assert taken["stack_bytes"] == 0, f"{name} spills registers"


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
def test_the_command_generates_the_tokens_of_the_reference(folder):
    command = [sys.executable, "-m", "backends.native", folder, "--kernels", "triton", "--max-new-tokens", "2"]
    run = subprocess.run(
        [*command, "--prompt-ids", ",".join(map(str, PROMPT))],
        env=environment(PYTHONPATH=str(ROOT), TRITON_INTERPRET="1"),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    expected = generate(load(folder, LoadOptions(kernels="reference")), PROMPT, 2)
    assert re.findall(r"\d+", run.stdout) == [str(token) for token in expected]
