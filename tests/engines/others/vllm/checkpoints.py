"""Tiny checkpoints in the forms that vLLM reads, written by the native stack in sizes for which it has CPU kernels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

INT8 = {"num_bits": 8, "type": "int", "symmetric": True}
FLOAT4 = {"num_bits": 4, "type": "float", "symmetric": True, "strategy": "tensor_group", "group_size": 16}
FORMS = {
    "w8a8": (
        {**INT8, "strategy": "channel", "dynamic": False}, {**INT8, "strategy": "token", "dynamic": True},
        "int-quantized",
    ),
    "w4a16": (
        {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 128}, None,
        "pack-quantized",
    ),
    "nvfp4": (
        {**FLOAT4, "dynamic": False}, {**FLOAT4, "dynamic": "local"},
        "nvfp4-pack-quantized",
    ),
}  # fmt: skip
"""Weights, inputs and layout of the compressed-tensors forms."""
NEVER_QUANTIZED = (".mlp.gate", ".shared_expert_gate", ".in_proj_a", ".in_proj_b", ".in_proj_ba")
FLOAT8 = {"quant_method": "fp8", "activation_scheme": "dynamic"}


def written(folder: Path, architecture: str, form: str) -> Path:
    """A checkpoint of an architecture in a form, of which the folder's name tells; a GGUF form gives its file."""
    from backends.native.checkpoint.synthesize import write_checkpoint
    from backends.native.registry import architecture_module

    config = dict(architecture_module(architecture).tiny_config())
    text = config.get("text_config", config)
    if "linear_value_head_dim" in text:
        sizes = {"linear_key_head_dim": 64, "linear_value_head_dim": 64}
        text = {**text, **sizes, "linear_num_key_heads": 2, "linear_num_value_heads": 4}
    if "mlp_only_layers" in text:
        text = {**text, "mlp_only_layers": [], "num_experts": 4, "moe_intermediate_size": 256}
    if "text_config" in config:
        config |= {"text_config": text, "vision_config": {**config["vision_config"], "num_heads": 4}}
    else:
        config = text
    if form == "gguf":
        return _written_gguf(folder, config)
    kept = ["lm_head", *_never_quantized(config)]
    if form in FORMS:
        weights, inputs, layout = FORMS[form]
        group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
        config["quantization_config"] = {
            "quant_method": "compressed-tensors", "format": layout, "config_groups": {"group_0": group},
            "ignore": kept,
        }  # fmt: skip
    elif form.startswith("fp8"):
        config["quantization_config"] = {**FLOAT8, "modules_to_not_convert": kept} | (
            {"weight_block_size": [128, 128]} if form == "fp8-blocks" else {}
        )
    return write_checkpoint(folder, config, seed=5, max_file_bytes=4_000_000)


def _written_gguf(folder: Path, config: dict[str, Any]) -> Path:
    """A GGUF file whose name tells what it is, with the config.json that vLLM reads beside it."""
    from backends.native.checkpoint.gguf_synthesize import write_gguf

    path = write_gguf(folder / folder.name, config, seed=5)
    (folder / "config.json").write_text(json.dumps(config))
    return path


def _never_quantized(config: dict[str, Any]) -> list[str]:
    """The modules which published checkpoints leave as they are, by their names on disk."""
    from backends.native.config import ModelConfig
    from backends.native.registry import architecture_module

    read = ModelConfig.from_fields(config)
    tensors = architecture_module(read.architecture).tensors(read)
    modules = (one.name.rpartition(".")[0] for one in tensors if one.quantizable)
    return [name for name in modules if name.endswith(NEVER_QUANTIZED)]
