"""Tiny GGUF files of every architecture, and their logits."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from backends.native.checkpoint.gguf_synthesize import Types, all_of, write_gguf
from backends.native.loader import LoadOptions, load
from backends.native.parallel.lockstep import run_ranks
from backends.native.registry import declared

ARCHITECTURES = sorted(declared("models", "GGML_ARCHITECTURES"))
PROMPT = tuple((i * 7) % 120 + 3 for i in range(9))
SIZES = {
    "dtype": "float32",
    "vocab_size": 500,
    "num_hidden_layers": 2,
    "full_attention_interval": 2,
    "layer_types": None,
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
    "linear_num_value_heads": 8,
    "num_experts": 4,
    "mlp_only_layers": [],
    "rope_scaling": None,
}


def gguf_config(architecture: str, **changes: Any) -> dict[str, Any]:
    """Two layers, whose rows are whole blocks of 256 and whose parts four ranks can share in blocks of 32."""
    config = importlib.import_module(f"backends.native.models.{architecture}").tiny_config()
    fields = config.get("text_config", config)
    fields.update({key: value for key, value in (SIZES | changes).items() if key in fields or key in changes})
    return config


def logits(path: Path, ranks: int = 1, dtype: torch.dtype = torch.float32, **options: Any) -> torch.Tensor:
    """Of PROMPT, [tokens, vocab_size] on the CPU, after checking that every tensor found its place."""
    loaded = load(path, LoadOptions(tp_size=ranks, dtype=dtype, **options))
    for report in loaded.reports:
        assert (report.never_filled, report.never_used) == ((), ())
    ids = torch.tensor(PROMPT).to(loaded.device)
    positions = torch.arange(len(PROMPT)).to(loaded.device)
    return run_ranks(ranks, lambda rank: loaded.models[rank](ids, positions))[0].cpu().float()


def dequantized_twin(source: Path, target: Path, config: dict[str, Any]) -> Path:
    """A file of the same model in F32, with the numbers that the library gguf makes of the blocks in `source`."""
    twin = write_gguf(target, config, seed=1, types=all_of("F32"))
    numbers = {tensor.name: tensor for tensor in gguf.GGUFReader(source).tensors}
    for tensor in gguf.GGUFReader(twin, "r+").tensors:
        stored = numbers.pop(tensor.name)
        tensor.data[:] = np.asarray(gguf.dequantize(stored.data, stored.tensor_type)).reshape(tensor.data.shape)
    assert numbers == {}
    return twin


def mixed_in_one_layer(name: str, shape: tuple[int, ...]) -> str:
    """Every matrix in blocks, with types that differ inside each fused layer."""
    if len(shape) < 2 or name.endswith(("ssm_conv1d.weight", "ffn_gate_inp_shexp.weight")):
        return "F32"
    cycle = ("Q4_K", "Q6_K", "F16", "Q5_K", "Q4_0")
    parts = ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up", "attn_qkv", "attn_gate", "ffn_gate_exps",
             "ffn_up_exps", "token_embd", "output")  # fmt: skip
    part = name.removesuffix(".weight").rpartition(".")[2]
    return cycle[parts.index(part) % len(cycle)] if part in parts else "Q8_0"


MIXES: dict[str, Types] = {"fused": mixed_in_one_layer, "BF16": all_of("BF16")}
