"""Tiny checkpoints of published layouts, written tensor by tensor without any code of the project."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

HIDDEN, VOCABULARY, LAYERS, FULL_ATTENTION = 128, 256, 3, 2
KEY_HEADS, VALUE_HEADS, HEAD = 4, 8, 32
KEYS, VALUES = KEY_HEADS * HEAD, VALUE_HEADS * HEAD
EXPERTS, EXPERT = 4, 64

SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": 128, "num_hidden_layers": LAYERS,
    "full_attention_interval": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "linear_num_key_heads": KEY_HEADS, "linear_key_head_dim": HEAD, "linear_num_value_heads": VALUE_HEADS,
    "linear_value_head_dim": HEAD, "linear_conv_kernel_dim": 4, "hidden_act": "silu", "rms_norm_eps": 1e-6,
    "max_position_embeddings": 4096, "attention_bias": False, "tie_word_embeddings": False, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip


def _attention(layer: str) -> dict[str, tuple[int, ...]]:
    """Full attention with an output gate: q_proj holds queries and gates."""
    return {
        f"{layer}.self_attn.q_proj": (2 * 4 * 32, HIDDEN), f"{layer}.self_attn.k_proj": (2 * 32, HIDDEN),
        f"{layer}.self_attn.v_proj": (2 * 32, HIDDEN), f"{layer}.self_attn.o_proj": (HIDDEN, 4 * 32),
    }  # fmt: skip


def _norms(prefix: str) -> dict[str, Tensor]:
    found = {f"{prefix}.norm.weight": (HIDDEN,)}
    for number in range(LAYERS):
        layer = f"{prefix}.layers.{number}"
        found |= {f"{layer}.{name}.weight": (HIDDEN,) for name in ("input_layernorm", "post_attention_layernorm")}
        if number == FULL_ATTENTION:
            found |= {f"{layer}.self_attn.{name}.weight": (32,) for name in ("q_norm", "k_norm")}
        else:
            found |= {
                f"{layer}.linear_attn.norm.weight": (HEAD,), f"{layer}.linear_attn.A_log": (VALUE_HEADS,),
                f"{layer}.linear_attn.dt_bias": (VALUE_HEADS,),
                f"{layer}.linear_attn.conv1d.weight": (2 * KEYS + VALUES, 1, 4),
            }  # fmt: skip
    found |= {f"{prefix}.embed_tokens.weight": (VOCABULARY, HIDDEN), "lm_head.weight": (VOCABULARY, HIDDEN)}
    return {
        name: torch.rand(shape, dtype=torch.float32 if name.endswith("A_log") else torch.bfloat16)
        for name, shape in found.items()
    }


def write(folder: Path, config: dict[str, object], tensors: dict[str, Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    return folder


def packed_int8(folder: Path) -> Path:
    """Qwen3-Next with packed input projections in int8, one scale a row; row r of `m` has the scale r + 1."""
    torch.manual_seed(1)
    tensors, linears = _norms("model"), {}
    for number in range(LAYERS):
        layer = f"model.layers.{number}"
        if number == FULL_ATTENTION:
            linears |= _attention(layer)
        else:
            linears |= {
                f"{layer}.linear_attn.in_proj_qkvz": (2 * KEYS + 2 * VALUES, HIDDEN),
                f"{layer}.linear_attn.in_proj_ba": (2 * VALUE_HEADS, HIDDEN),
                f"{layer}.linear_attn.out_proj": (HIDDEN, VALUES),
            }
        for place in [f"experts.{expert}" for expert in range(EXPERTS)] + ["shared_expert"]:
            linears |= {
                f"{layer}.mlp.{place}.gate_proj": (EXPERT, HIDDEN), f"{layer}.mlp.{place}.up_proj": (EXPERT, HIDDEN),
                f"{layer}.mlp.{place}.down_proj": (HIDDEN, EXPERT),
            }  # fmt: skip
        tensors |= {
            f"{layer}.mlp.gate.weight": torch.rand(EXPERTS, HIDDEN).bfloat16(),
            f"{layer}.mlp.shared_expert_gate.weight": torch.rand(1, HIDDEN).bfloat16(),
        }
    for name, (rows, columns) in linears.items():
        tensors[f"{name}.weight"] = torch.randint(-127, 128, (rows, columns), dtype=torch.int8)
        tensors[f"{name}.weight_scale"] = torch.arange(1, rows + 1, dtype=torch.float32).reshape(rows, 1)
    kept = [name.removesuffix(".weight") for name in tensors if name.endswith(("gate.weight", "conv1d.weight"))]
    config = {
        **SIZES, "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "dtype": "bfloat16",
        "num_experts": EXPERTS, "num_experts_per_tok": 1, "moe_intermediate_size": EXPERT,
        "shared_expert_intermediate_size": EXPERT, "norm_topk_prob": True, "decoder_sparse_step": 1,
        "mlp_only_layers": [], "rope_theta": 1e7, "partial_rotary_factor": 0.25,
        "quantization_config": {"quant_method": "w8a8_int8", "ignore": ["lm_head", *kept]},
    }  # fmt: skip
    return write(folder, config, tensors)


def separate_fp8(folder: Path) -> Path:
    """Qwen3.5 with separate input projections in FP8, one scale of one element for each projection on disk."""
    torch.manual_seed(2)
    prefix = "model.language_model"
    tensors, linears = _norms(prefix), {}
    kept = ["lm_head"]
    for number in range(LAYERS):
        layer = f"{prefix}.layers.{number}"
        linears |= {
            f"{layer}.mlp.gate_proj": (128, HIDDEN), f"{layer}.mlp.up_proj": (128, HIDDEN),
            f"{layer}.mlp.down_proj": (HIDDEN, 128),
        }  # fmt: skip
        if number == FULL_ATTENTION:
            linears |= _attention(layer)
            continue
        at = f"{layer}.linear_attn"
        linears |= {
            f"{at}.in_proj_qkv": (2 * KEYS + VALUES, HIDDEN), f"{at}.in_proj_z": (VALUES, HIDDEN),
            f"{at}.out_proj": (HIDDEN, VALUES),
        }  # fmt: skip
        tensors |= {f"{at}.in_proj_{n}.weight": torch.rand(VALUE_HEADS, HIDDEN).bfloat16() for n in "ba"}
        kept += [f"{at}.{name}" for name in ("conv1d", "in_proj_b", "in_proj_a")]
    for name, shape in linears.items():
        tensors[f"{name}.weight"] = torch.randn(shape).to(torch.float8_e4m3fn)
        # Both spellings of one element are published.
        tensors[f"{name}.weight_scale"] = torch.tensor([0.01] if name.endswith("in_proj_qkv") else 0.01)
    text = {
        **SIZES, "model_type": "qwen3_5_text", "dtype": "bfloat16", "attn_output_gate": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.25,
                            "mrope_interleaved": True, "mrope_section": [2, 1, 1]},
    }  # fmt: skip
    vision = {
        "model_type": "qwen3_5", "depth": 1, "hidden_size": 64, "intermediate_size": 64, "num_heads": 4,
        "out_hidden_size": HIDDEN, "num_position_embeddings": 16,
    }  # fmt: skip
    config = {
        "architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5", "tie_word_embeddings": False,
        "text_config": text, "vision_config": vision,
        "quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic", "modules_to_not_convert": kept},
    }  # fmt: skip
    return write(folder, config, tensors)


def up_first_gguf(folder: Path) -> Path:
    """The same as `q8_gguf`, with `ffn_up` before `ffn_gate` in each layer."""
    return q8_gguf(folder, is_up_first=True)


def q8_gguf(folder: Path, *, is_up_first: bool = False) -> Path:
    """Qwen3, dense, as one GGUF file: matrices in Q8_0, embeddings in F16, norms in F32, a vocabulary of bytes."""
    import gguf

    torch.manual_seed(3)
    folder.mkdir(parents=True)
    out, layers, heads, head = gguf.GGUFWriter(folder / "tiny.gguf", "qwen3"), 2, 2, 128
    for add, value in (
        (out.add_block_count, layers), (out.add_context_length, 4096), (out.add_embedding_length, HIDDEN),
        (out.add_feed_forward_length, 256), (out.add_head_count, heads), (out.add_head_count_kv, 2),
        (out.add_key_length, head), (out.add_value_length, head), (out.add_layer_norm_rms_eps, 1e-6),
        (out.add_rope_freq_base, 1e6), (out.add_vocab_size, VOCABULARY), (out.add_tokenizer_model, "gpt2"),
        (out.add_tokenizer_pre, "qwen2"), (out.add_token_list, [chr(256 + n) for n in range(VOCABULARY)]),
        (out.add_token_types, [1] * VOCABULARY), (out.add_token_merges, ["a b"]), (out.add_eos_token_id, 2),
    ):  # fmt: skip
        add(value)
    matrices = {
        "attn_q": (heads * head, HIDDEN), "attn_k": (2 * head, HIDDEN), "attn_v": (2 * head, HIDDEN),
        "attn_output": (HIDDEN, heads * head), "ffn_gate": (256, HIDDEN), "ffn_up": (256, HIDDEN),
        "ffn_down": (HIDDEN, 256),
    }  # fmt: skip
    if is_up_first:
        matrices = {"ffn_up": matrices.pop("ffn_up"), **matrices}
    norms = {"attn_norm": HIDDEN, "ffn_norm": HIDDEN, "attn_q_norm": head, "attn_k_norm": head}
    for name in ("token_embd", "output"):
        out.add_tensor(f"{name}.weight", torch.randn(VOCABULARY, HIDDEN).half().numpy())
    out.add_tensor("output_norm.weight", torch.rand(HIDDEN).numpy())
    q8 = gguf.GGMLQuantizationType.Q8_0
    for layer in range(layers):
        for name, size in norms.items():
            out.add_tensor(f"blk.{layer}.{name}.weight", torch.rand(size).numpy())
        for name, shape in matrices.items():
            blocks = gguf.quants.quantize(torch.randn(shape).numpy(), q8)
            out.add_tensor(f"blk.{layer}.{name}.weight", blocks, raw_dtype=q8)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return folder / "tiny.gguf"
