"""Tiny checkpoints of every format, written, loaded on several ranks and run, against their dequantized twins."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from backends.native.checkpoint.index import open_checkpoint
from backends.native.checkpoint.reader import iterate_weights
from backends.native.checkpoint.synthesize import write_checkpoint
from backends.native.config import ModelConfig
from backends.native.loader import LoadOptions, load
from backends.native.parallel.lockstep import run_ranks
from backends.native.registry import declared, quantization_config

ARCHITECTURES = sorted(declared("models", "ARCHITECTURES"))
SIZES = {
    "vocab_size": 128,
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "layer_types": None,
    "full_attention_interval": 2,
    "head_dim": 32,
    "linear_key_head_dim": 32,
    "linear_num_value_heads": 8,
    "linear_value_head_dim": 16,
    "num_experts": 4,
    "moe_intermediate_size": 128,
    "shared_expert_intermediate_size": 128,
}
WEIGHTS8 = {"num_bits": 8, "symmetric": True, "dynamic": False, "strategy": "channel"}
TOKENS8 = {"num_bits": 8, "symmetric": True, "dynamic": True, "strategy": "token"}
FLOAT4 = {"num_bits": 4, "type": "float", "symmetric": True}


def groups(layout: str, weights: dict[str, Any], inputs: dict[str, Any] | None = None) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
    return {"quant_method": "compressed-tensors", "format": layout, "config_groups": {"group_0": group}}


def ints(**changes: Any) -> dict[str, Any]:
    return {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32} | changes


METHODS: dict[str, tuple[str | None, dict[str, Any]]] = {
    # name: (key of the ignore list, quantization_config)
    "fp8 block": ("modules_to_not_convert", {"quant_method": "fp8", "weight_block_size": [32, 32]}),
    "fp8 static": ("ignored_layers", {"quant_method": "fp8", "activation_scheme": "static"}),
    "fp8 dynamic": ("modules_to_not_convert", {"quant_method": "fp8", "activation_scheme": "dynamic"}),
    "fp8 channel": ("modules_to_not_convert", {"quant_method": "fbgemm_fp8"}),
    "ct int8": ("ignore", groups("int-quantized", WEIGHTS8 | {"type": "int"}, TOKENS8)),
    "ct fp8 channel": ("ignore", groups("float-quantized", WEIGHTS8 | {"type": "float"}, TOKENS8)),
    "ct fp8 tensor": ("ignore", groups("float-quantized", WEIGHTS8 | {"type": "float", "strategy": "tensor"},
                                       {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False})),
    "ct int4": ("ignore", groups("pack-quantized", ints())),
    "ct int4 zero points": ("ignore", groups("pack-quantized", ints(symmetric=False))),
    "ct int4 actorder": ("ignore", groups("pack-quantized", ints(actorder="group"))),
    "ct nvfp4": ("ignore", groups("nvfp4-pack-quantized", FLOAT4 | {"strategy": "tensor_group", "group_size": 16},
                                  FLOAT4 | {"strategy": "tensor_group", "group_size": 16, "dynamic": "local"})),
    "ct mxfp4": ("ignore", groups("mxfp4-pack-quantized", FLOAT4 | {"strategy": "group", "group_size": 32})),
    "modelopt nvfp4": ("exclude_modules", {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16}),
    "modelopt fp8": ("ignore", {"quant_method": "modelopt", "quant_algo": "FP8"}),
    "mxfp4": ("modules_to_not_convert", {"quant_method": "mxfp4"}),
    "awq": ("modules_to_not_convert", {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}),
    "gptq": ("modules_to_not_convert", {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True}),
    "gptq desc_act": ("modules_to_not_convert",
                      {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": True, "sym": False}),
    "modelslim static": (None, {"quant_method": "modelslim", "model_quant_type": "W8A8"}),
    "modelslim dynamic": (None, {"quant_method": "modelslim", "model_quant_type": "W8A8_DYNAMIC"}),
}  # fmt: skip
INPUTS_ARE_QUANTIZED = {"fp8 static", "fp8 dynamic", "fp8 channel", "ct int8", "ct fp8 channel", "ct fp8 tensor",
                        "ct nvfp4", "modelopt nvfp4", "modelopt fp8", "modelslim static",
                        "modelslim dynamic"}  # fmt: skip


def small_config(architecture: str) -> dict[str, Any]:
    config = importlib.import_module(f"backends.native.models.{architecture}").tiny_config()
    fields = config.get("text_config", config)
    fields.update({key: value for key, value in SIZES.items() if key in fields})
    if "layer_types" in fields:
        del fields["layer_types"]
    return config


def config_of(architecture: str, method: str) -> dict[str, Any]:
    config, (key, quantization) = small_config(architecture), METHODS[method]
    module = importlib.import_module(f"backends.native.models.{architecture}")
    kept = module.modules_to_not_convert(ModelConfig.from_fields(config))
    if key is None:
        # The packed projections are what ModelSlim quantizes and others leave alone.
        listed = {f"{name}.weight": "FLOAT" for name in kept if not name.endswith("in_proj_qkvz")}
        return config | {"quantization_config": quantization | listed}
    return config | {"quantization_config": quantization | {key: kept}}


def logits(folder: Any, ranks: int) -> torch.Tensor:
    loaded = load(folder, LoadOptions(tp_size=ranks, dtype=torch.float32))
    for report in loaded.reports:
        assert (report.never_filled, report.never_used) == ((), ())
    ids, positions = torch.arange(1, 8), torch.arange(7)
    return run_ranks(ranks, lambda rank: loaded.models[rank](ids, positions))[0]


def write_dequantized(folder: Any, source: Any, config: dict[str, Any]) -> None:
    """The same checkpoint with plain weights."""
    method = quantization_config(ModelConfig.from_fields(config), {}, {})
    modules: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in iterate_weights(open_checkpoint(source)):
        module, _, suffix = name.rpartition(".")
        modules.setdefault(module, {})[suffix] = tensor
    plain = {}
    for module, tensors in modules.items():
        if len(tensors.keys() - {"bias"}) > 1 and not module.endswith("linear_attn"):
            plain[f"{module}.weight"] = method.dequantize(module, tensors)
        else:
            plain.update({f"{module}.{suffix}": tensor.float() for suffix, tensor in tensors.items()})
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in plain.items()}, folder / "model.safetensors")
    fields = {key: value for key, value in config.items() if key != "quantization_config"}
    (folder / "config.json").write_text(json.dumps(fields))


def tolerance(method: str) -> float:
    """Of the logits of random weights; the bound of one layer is tested on its own."""
    if method not in INPUTS_ARE_QUANTIZED:
        return 3e-6
    return 0.06 if method in ("ct int8", "modelslim dynamic") else 0.5 if "nvfp4" in method else 0.25


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_quantized_checkpoint_runs_as_its_dequantized_twin_on_several_ranks(tmp_path, architecture, method):
    config, source = config_of(architecture, method), tmp_path / "quantized"
    write_checkpoint(source, config, seed=3, max_file_bytes=1 << 20)
    write_dequantized(tmp_path / "plain", source, config)
    expected = logits(tmp_path / "plain", 1)
    for ranks in (1, 4) if architecture == "qwen3_next" and "int4" not in method else (2,):
        assert (logits(source, ranks) - expected).norm() / expected.norm() < tolerance(method)
