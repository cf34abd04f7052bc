"""Quantized checkpoints on triton kernels, interpreted, against the reference kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from backends.native.checkpoint.synthesize import write_checkpoint
from backends.native.cli import main
from backends.native.config import ModelConfig
from backends.native.loader import LoadOptions, load
from backends.native.models import qwen3_moe

pytest.importorskip("triton")
SIZES = {"num_hidden_layers": 1, "vocab_size": 64, "hidden_size": 64, "intermediate_size": 64, "head_dim": 16,
         "num_experts": 4, "moe_intermediate_size": 32}  # fmt: skip
INT8 = {"num_bits": 8, "type": "int", "strategy": "channel"}
METHODS: dict[str, tuple[str, dict[str, Any], str]] = {
    # name: (key of the ignore list, quantization_config, a kernel that must be launched)
    "fp8 block": (
        "modules_to_not_convert",
        {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [16, 16]},
        "block_linear_kernel",
    ),
    "int8": (
        "ignore",
        {
            "quant_method": "compressed-tensors",
            "format": "int-quantized",
            "config_groups": {
                "group_0": {
                    "targets": ["Linear"],
                    "weights": INT8,
                    "input_activations": INT8 | {"strategy": "token", "dynamic": True},
                }
            },
        },
        "int8_product_kernel",
    ),
    "nvfp4": ("ignore", {"quant_method": "modelopt", "quant_algo": "NVFP4"}, "quantize_float4_kernel"),
    "mxfp4": ("modules_to_not_convert", {"quant_method": "mxfp4"}, "float4_product_kernel"),
}


@pytest.fixture(autouse=True)
def interpreter(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("interpreted only where there is no GPU")
    monkeypatch.setenv("TRITON_INTERPRET", "1")


def write(folder, method):
    key, quantization, _ = METHODS[method]
    config = qwen3_moe.tiny_config() | SIZES
    kept = qwen3_moe.modules_to_not_convert(ModelConfig.from_fields(config))
    write_checkpoint(
        folder, config | {"quantization_config": quantization | {key: kept}}, seed=1, max_file_bytes=1 << 20
    )


def logits(folder, kernels, *, quantizes_inputs=False):
    options = LoadOptions(dtype=torch.float32, kernels=kernels, quantizes_inputs=quantizes_inputs)
    model = load(folder, options).model(0)
    return model(torch.tensor([5, 6, 7]), torch.arange(3))


@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_runs_on_triton_kernels_as_on_the_reference(tmp_path, monkeypatch, method):
    interpreted = pytest.importorskip("triton.runtime.interpreter")
    launched, run = set(), interpreted.InterpretedFunction.run

    def noted(self, *args, **kw):
        launched.add(self.fn.__name__)
        return run(self, *args, **kw)

    write(tmp_path, method)
    expected = logits(tmp_path, "reference")
    assert not launched
    monkeypatch.setattr(interpreted.InterpretedFunction, "run", noted)
    assert (logits(tmp_path, "triton") - expected).norm() / expected.norm() < 1e-5
    assert METHODS[method][2] in launched


def test_a_checkpoint_with_quantized_inputs_runs_on_triton_kernels_as_on_the_reference(tmp_path):
    write(tmp_path, "fp8 block")
    expected, found = (logits(tmp_path, kernels, quantizes_inputs=True) for kernels in ("reference", "triton"))
    # An element of an input that lies between two e4m3 may go the other way: one step of one of many inputs.
    assert (found - expected).norm() / expected.norm() < 1e-3
    assert not torch.equal(expected, logits(tmp_path, "reference"))


def test_the_command_prints_the_same_tokens_with_either_kernels(tmp_path, capsys):
    write(tmp_path, "fp8 block")
    answers = []
    for kernels in ("reference", "triton"):
        arguments = [str(tmp_path), "--kernels", kernels, "--dtype", "float32", "--max-new-tokens", "2"]
        assert main([*arguments, "--threads", "1"]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]
    assert len(answers[0].split(",")) == 2
