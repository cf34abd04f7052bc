"""Writes the small checkpoints that engines of others are given: `python written.py NAME FOLDER`, whose path it prints.

A name is one of `tiny.py`, "fp8_block", or `Architecture/form` as the native stack's writer makes it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

FLOAT8 = {"quant_method": "fp8", "activation_scheme": "dynamic"}
BLOCKS = {**FLOAT8, "weight_block_size": [128, 128]}
INT8 = {"num_bits": 8, "type": "int", "symmetric": True}
INT8_GROUP = {
    "targets": ["Linear"], "weights": {**INT8, "strategy": "channel", "dynamic": False},
    "input_activations": {**INT8, "strategy": "token", "dynamic": True},
}  # fmt: skip
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    # name: (key of the ignore list, quantization_config)
    "fp8": ("modules_to_not_convert", BLOCKS),
    "fp8-tensor": ("modules_to_not_convert", FLOAT8),
    "w8a8": ("ignore", {"quant_method": "compressed-tensors", "format": "int-quantized",
                        "config_groups": {"group_0": INT8_GROUP}}),
    "nvfp4": ("exclude_modules", {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16}),
}  # fmt: skip
PLAIN_IN_FLOAT4 = {
    "Qwen3NextForCausalLM": (".q_proj", ".k_proj", ".v_proj"),
    "Qwen3_5ForConditionalGeneration": (".in_proj_qkv", ".in_proj_z"),
}
"""What checkpoints in NVFP4 leave in bfloat16 besides."""
SEED, MAX_FILE_BYTES = 5, 4_000_000


def written(name: str, folder: Path) -> Path:
    """Write the checkpoint called `name`; its folder, or its file in GGUF. Raises NativeError where there is none."""
    if "/" in name:
        return of_native(folder, *name.split("/"))
    if name == "fp8_block":
        return fp8_block(folder)
    path = Path(__file__).with_name("tiny.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    tiny: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    return getattr(tiny, name)(folder)


def of_native(folder: Path, architecture: str, form: str) -> Path:
    """The native stack's tiny checkpoint of an architecture, with the ignore list of published checkpoints."""
    from backends.native.checkpoint.gguf_synthesize import write_gguf
    from backends.native.checkpoint.synthesize import write_checkpoint
    from backends.native.config import ModelConfig
    from backends.native.registry import architecture_module

    module = architecture_module(architecture)
    config = module.tiny_config()
    if "mlp_only_layers" in config:
        config["mlp_only_layers"] = []  # SGLang builds experts in every layer
    if "vision_config" in config:
        config["vision_config"] = {**config["vision_config"], "num_heads": 4}
    if form == "gguf":
        return write_gguf(folder / "model", config, seed=SEED)
    if form in FORMS:
        key, quantization = FORMS[form]
        read = ModelConfig.from_fields(config)
        kept = module.modules_to_not_convert(read)
        if form == "nvfp4":
            modules = (one.name.removesuffix(".weight") for one in module.tensors(read))
            kept += [name for name in modules if name.endswith(PLAIN_IN_FLOAT4.get(architecture, "no module"))]
        config["quantization_config"] = {**quantization, key: kept}
    return write_checkpoint(folder, config, seed=SEED, max_file_bytes=MAX_FILE_BYTES)


def fp8_block(folder: Path) -> Path:
    """Qwen3-Next in FP8 blocks whose ignore list names the fused projections as they are on disk."""
    from backends.native.checkpoint.synthesize import write_checkpoint
    from backends.native.registry import architecture_module

    config = architecture_module("Qwen3NextForCausalLM").tiny_config()
    parts = ("linear_attn.conv1d", "linear_attn.in_proj_ba", "linear_attn.in_proj_qkvz", "mlp.gate",
             "mlp.shared_expert_gate")  # fmt: skip
    names = [f"model.layers.{layer}.{part}" for layer in range(int(config["num_hidden_layers"])) for part in parts]
    kept = ["lm_head", *(n for n in names if "layers.3.linear_attn" not in n)]
    config["quantization_config"] = {**BLOCKS, "modules_to_not_convert": kept}
    return write_checkpoint(folder, config, seed=3, max_file_bytes=MAX_FILE_BYTES)


if __name__ == "__main__":
    print(written(sys.argv[1], Path(sys.argv[2])))
