"""Writes a small GGUF file of any architecture, as a converter makes it from the model's published tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

from backends.native.checkpoint.gguf_config import FIELDS
from backends.native.checkpoint.gguf_convert import converted
from backends.native.checkpoint.gguf_files import SUFFIX
from backends.native.checkpoint.synthesize import stored_tensors
from backends.native.config import ModelConfig, text_fields
from backends.native.errors import ConfigError
from backends.native.kernels.reference.ggml_types import BY_NAME
from backends.native.kernels.reference.quantize_gguf import quantize_gguf
from backends.native.registry import architecture_module, quantization_config

Types = Callable[[str, tuple[int, ...]], str]
SPECIAL_TOKENS = 256
ROWS_SPLIT_BY_RANKS = ("attn_output.weight", "ffn_down.weight", "ffn_down_exps.weight", "ffn_down_shexp.weight",
                       "ssm_out.weight")  # fmt: skip
RANKS = 4


def mixed_types(name: str, shape: tuple[int, ...]) -> str:
    """A type for the tensor called `name` in the file, in the manner of Q4_K_M: values and the head finer, norms not.

    What ranks split by columns gets blocks that four ranks can share.
    """
    if len(shape) < 2 or name.endswith(("ffn_gate_inp.weight", "ssm_conv1d.weight", "ffn_gate_inp_shexp.weight")):
        return "F32"
    is_fine = name.endswith(("attn_v.weight", "ffn_down.weight", "ffn_down_exps.weight")) or name == "output.weight"
    columns = shape[-1] // (RANKS if name.endswith(ROWS_SPLIT_BY_RANKS) else 1)
    if columns % BY_NAME["Q4_K"].block_elements == 0:
        return "Q6_K" if is_fine else "Q4_K"
    return "Q8_0" if is_fine or columns % BY_NAME["Q5_0"].block_elements else "Q5_0"


def all_of(type_name: str) -> Types:
    """That type for every matrix that `mixed_types` does not leave in F32."""
    return lambda name, shape: "F32" if mixed_types(name, shape) == "F32" else type_name


def write_gguf(
    path: str | Path,
    config: Mapping[str, object],
    *,
    seed: int,
    types: Types = mixed_types,
    split_tensors: int = 0,
    is_sorted: bool = False,
) -> Path:
    """Write one file with synthesized tensors and metadata, or files of `split_tensors` tensors; returns the first.

    The tensors stand in the model's order, or by their names, so that `attn_k` comes before `attn_q`.

    `config` has the fields of a config.json without a quantization_config. The values are those that write_checkpoint
    gives the same config and seed.
    """
    import gguf

    model_config = ModelConfig.from_fields(config)
    module = architecture_module(model_config.architecture)
    target = Path(path).with_suffix(SUFFIX)
    target.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(target, module.GGML_ARCHITECTURES[0], split_max_tensors=split_tensors)
    specs = list(module.tensors(model_config))
    method = quantization_config(model_config, {}, {})
    published = (pair for spec in specs for pair in stored_tensors(spec, method, seed))
    fields = _plain_fields(module, model_config)
    _write_metadata(writer, fields)
    pairs = converted(published, fields, module.GGML_LAYOUT)
    for name, tensor in sorted(pairs, key=itemgetter(0)) if is_sorted else pairs:
        known = BY_NAME[types(name, tuple(tensor.shape))]
        if name.endswith("ssm_out.weight") and _run_of_columns(fields) % known.block_elements:
            known = BY_NAME["F16"]
        stored = quantize_gguf(tensor, known.number)
        writer.add_tensor(name, stored.numpy(), raw_dtype=gguf.GGMLQuantizationType(known.number))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    return target if target.exists() else next(target.parent.glob(f"{target.stem}-00001-of-*{SUFFIX}"))


def _run_of_columns(fields: Mapping[str, Any]) -> int:
    """Columns of a delta net's value heads that stand together in a file and belong to one of four ranks."""
    return max(1, int(fields["linear_num_key_heads"]) // RANKS) * int(fields["linear_value_head_dim"])


def _plain_fields(module: Any, model_config: ModelConfig) -> dict[str, Any]:
    """Fields of the text part, with those that have a place of their own in newer config.json files."""
    fields: dict[str, Any] = dict(text_fields(model_config.fields))
    rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    fields = {**fields, **rope} if isinstance(rope, dict) else fields
    if fields.get("rope_type", "default") != "default":
        raise ConfigError(
            f"rope_type {fields['rope_type']!r} is not written to GGUF.", "remove rope_scaling from the config"
        )
    factor = float(fields.get("partial_rotary_factor", _partial_rotary_factor(module)))
    fields["rotary_dim"] = int(factor * int(fields["head_dim"]))
    return fields


def _partial_rotary_factor(module: Any) -> float:
    configs = (value for value in vars(module).values() if hasattr(value, "partial_rotary_factor"))
    return float(next(configs).partial_rotary_factor)


def _write_metadata(writer: Any, fields: Mapping[str, Any]) -> None:
    add = {int: writer.add_uint32, float: writer.add_float32, bool: writer.add_bool}
    for key, (name, kind) in FIELDS.items():
        if fields.get(name) is not None and key != "expert_weights_norm":
            add[kind](f"{writer.arch}.{key}", kind(fields[name]))
    writer.add_uint32(f"{writer.arch}.attention.value_length", fields["head_dim"])
    writer.add_uint32(f"{writer.arch}.rope.dimension_count", fields["rotary_dim"])
    if "linear_num_value_heads" in fields:
        inner = fields["linear_num_value_heads"] * fields["linear_value_head_dim"]
        writer.add_uint32(f"{writer.arch}.ssm.inner_size", inner)
        writer.add_uint32(f"{writer.arch}.full_attention_interval", fields.get("full_attention_interval", 4))
        # Pairs take the three positions in turn; what no section counts would turn by a fourth one, which text lacks.
        sections = [-(-(fields["rotary_dim"] // 2 - first) // 3) for first in range(3)]
        writer.add_array(f"{writer.arch}.rope.dimension_sections", [*sections, 0])
    _write_vocabulary(writer, fields["vocab_size"])


def _write_vocabulary(writer: Any, size: int) -> None:
    """Bytes and numbered special tokens: peers refuse a file without a vocabulary."""
    printable = range(33, 127)
    tokens = [chr(n if n in printable else SPECIAL_TOKENS + n) for n in range(min(size, SPECIAL_TOKENS))]
    tokens += [f"<|{n}|>" for n in range(SPECIAL_TOKENS, size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * min(size, SPECIAL_TOKENS) + [3] * max(0, size - SPECIAL_TOKENS))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
