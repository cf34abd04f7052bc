"""The metadata of a GGUF file as the fields of a config.json."""

from __future__ import annotations

import importlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backends.native.checkpoint.gguf_files import SUFFIX
from backends.native.checkpoint.gguf_header import GgufHeader, GgufTensor, read_gguf_header
from backends.native.checkpoint.gguf_names import BLOCK_NAME
from backends.native.errors import CheckpointError, UnknownNameError

ROPE_FACTORS = "rope_freqs.weight"
FIELDS: Mapping[str, tuple[str, type]] = {
    "block_count": ("num_hidden_layers", int),
    "context_length": ("max_position_embeddings", int),
    "embedding_length": ("hidden_size", int),
    "feed_forward_length": ("intermediate_size", int),
    "attention.head_count": ("num_attention_heads", int),
    "attention.head_count_kv": ("num_key_value_heads", int),
    "attention.key_length": ("head_dim", int),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", float),
    "rope.freq_base": ("rope_theta", float),
    "expert_count": ("num_experts", int),
    "expert_used_count": ("num_experts_per_tok", int),
    "expert_feed_forward_length": ("moe_intermediate_size", int),
    "expert_shared_feed_forward_length": ("shared_expert_intermediate_size", int),
    "expert_weights_norm": ("norm_topk_prob", bool),
    "ssm.conv_kernel": ("linear_conv_kernel_dim", int),
    "ssm.state_size": ("linear_key_head_dim", int),
    "ssm.group_count": ("linear_num_key_heads", int),
    "ssm.time_step_rank": ("linear_num_value_heads", int),
}
"""Keys after the architecture's name, and the field each is."""
TOKENS = {"tokenizer.ggml.bos_token_id": "bos_token_id", "tokenizer.ggml.eos_token_id": "eos_token_id"}
SIZES = (
    "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "linear_num_key_heads",
    "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim", "num_experts",
)  # fmt: skip
"""What is needed to undo a converter's changes."""


def gguf_fields(files: Sequence[Path]) -> dict[str, object]:
    """The fields of a config.json for the model in `files`, of which the first has the metadata.

    Raises CheckpointError naming a key that is missing or wrong, UnknownNameError for an unknown architecture.
    """
    headers = [read_gguf_header(file) for file in files]
    metadata = _Metadata(headers[0])
    tensors = {tensor.name: tensor for header in headers for tensor in header.tensors}
    module = _architecture(metadata)
    fields = metadata.fields()
    fields |= {
        "architectures": [module.ARCHITECTURES[-1]],
        "vocab_size": _rows(tensors, "token_embd.weight", files[0]),
        "dtype": "float16" if any(t.ggml_type.name == "F16" for t in tensors.values()) else "bfloat16",
        "hidden_act": "silu",
        "tie_word_embeddings": "output.weight" not in tensors,
        "attention_bias": "blk.0.attn_q.bias" in tensors,
        "mlp_bias": "blk.0.ffn_gate.bias" in tensors,
        "layer_types": _layer_types(tensors, fields["num_hidden_layers"]),
        "mlp_only_layers": _dense_layers(tensors, fields["num_hidden_layers"]),
        "has_packed_projections": False,
        "rope_parameters": _rope(metadata, headers, tensors.get(ROPE_FACTORS)),
    }
    fields["quantization_config"] = {
        "quant_method": SUFFIX.removeprefix("."),
        "tensor_types": {name: tensor.ggml_type.name for name, tensor in tensors.items()},
        "layout": asdict(module.GGML_LAYOUT),
        "sizes": {name: fields[name] for name in SIZES if name in fields},
    }
    return fields


class _Metadata:
    """Values by key, each of the type it must have."""

    def __init__(self, header: GgufHeader) -> None:
        self.path, self.values = header.path, header.metadata
        self.architecture = str(self.required("general.architecture", str))

    def required(self, key: str, kind: type) -> Any:
        value = self.optional(key, kind)
        if value is None:
            raise CheckpointError(
                f"{self.path}: metadata key {key} is absent, expected {kind.__name__}.",
                "pass the first file of a split model, or convert the model again",
            )
        return value

    def optional(self, key: str, kind: type) -> Any:
        value = self.values.get(key)
        if isinstance(value, tuple) and len(set(value) - {0}) == 1:
            # One number per layer, 0 for layers that have no such thing.
            value = next(number for number in value if number)
        if value is not None and type(value) is not kind:
            raise CheckpointError(
                f"{self.path}: metadata key {key} is {value!r}, expected {kind.__name__}.", "convert the model again"
            )
        # A file has such a number as float32: what was written as 1e-6 is that again with the digits it can hold.
        return float(f"{value:.7g}") if kind is float and value is not None else value

    def fields(self) -> dict[str, Any]:
        prefix = self.architecture
        found = {name: self.optional(f"{prefix}.{key}", kind) for key, (name, kind) in FIELDS.items()}
        fields = {name: value for name, value in found.items() if value is not None}
        for key in ("block_count", "embedding_length", "attention.head_count"):
            fields[FIELDS[key][0]] = self.required(f"{prefix}.{key}", int)
        # Blocks of multi-token prediction stand after those of the model and are counted with them.
        fields["num_hidden_layers"] -= self.optional(f"{prefix}.nextn_predict_layers", int) or 0
        fields.setdefault("num_key_value_heads", fields["num_attention_heads"])
        fields.setdefault("head_dim", fields["hidden_size"] // max(fields["num_attention_heads"], 1))
        inner, heads = self.optional(f"{prefix}.ssm.inner_size", int), fields.get("linear_num_value_heads")
        if inner and heads:
            fields["linear_value_head_dim"] = inner // heads
        if "num_experts" in fields:
            fields.setdefault("norm_topk_prob", True)
            # A model without dense layers need not say how wide they would be.
            fields.setdefault("intermediate_size", fields.get("moe_intermediate_size", 0))
        for key, name in TOKENS.items():
            value = self.optional(key, int)
            fields |= {} if value is None else {name: value}
        return fields


def _architecture(metadata: _Metadata) -> Any:
    from backends.native.registry import declared, did_you_mean

    plugins = declared("models", "GGML_ARCHITECTURES")
    for stem, names in plugins.items():
        if metadata.architecture in names:
            return importlib.import_module(f"backends.native.models.{stem}")
    raise UnknownNameError(
        f"{metadata.path}: general.architecture {metadata.architecture!r} is not known.",
        did_you_mean(metadata.architecture, (name for names in plugins.values() for name in names)),
    )


def _rows(tensors: Mapping[str, GgufTensor], name: str, file: Path) -> int:
    if name not in tensors or len(tensors[name].shape) != 2:
        found = list(tensors[name].shape) if name in tensors else "absent"
        raise CheckpointError(
            f"{file}: tensor {name} is {found}, expected [vocab_size, hidden_size].", "convert the model again"
        )
    return tensors[name].shape[0]


def _layers_with(tensors: Mapping[str, GgufTensor], rest: str) -> set[int]:
    matches = (BLOCK_NAME.match(name) for name in tensors)
    return {int(match["layer"]) for match in matches if match is not None and match["rest"] == rest}


def _layer_types(tensors: Mapping[str, GgufTensor], layers: int) -> list[str] | None:
    """The kind of each layer by the tensors it has, None for a model without linear attention."""
    linear = _layers_with(tensors, "ssm_out.weight")
    return ["linear_attention" if n in linear else "full_attention" for n in range(layers)] if linear else None


def _dense_layers(tensors: Mapping[str, GgufTensor], layers: int) -> list[int]:
    return sorted(layer for layer in _layers_with(tensors, "ffn_gate.weight") if layer < layers)


def _rope(metadata: _Metadata, headers: Sequence[GgufHeader], factors: GgufTensor | None) -> dict[str, object]:
    """Frequencies by their base, the part of a head that turns, and a factor per frequency where the file has those."""
    prefix, fields = metadata.architecture, metadata.fields()
    turning = metadata.optional(f"{prefix}.rope.dimension_count", int)
    scaling = metadata.optional(f"{prefix}.rope.scaling.type", str)
    rope: dict[str, object] = {"rope_type": "default" if scaling in (None, "none") else scaling}
    if "rope_theta" in fields:
        rope["rope_theta"] = fields["rope_theta"]
    if turning is not None:
        rope["partial_rotary_factor"] = turning / fields["head_dim"]
    if factors is not None:
        file = next(header.path for header in headers if factors in header.tensors)
        with file.open("rb") as opened:
            opened.seek(factors.start_byte)
            rope["freq_factors"] = list(struct.unpack(f"<{factors.shape[-1]}f", opened.read(factors.size_bytes)))
    return rope
