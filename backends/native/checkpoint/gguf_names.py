"""The names of tensors in a GGUF file and in the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

BLOCK_NAME = re.compile(r"^blk\.(?P<layer>\d+)\.(?P<rest>.+)$")
OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
IN_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_qkv": "linear_attn.in_proj_qkv",
    "attn_gate": "linear_attn.in_proj_z",
    "ssm_in": "linear_attn.in_proj_qkvz",
    "ssm_ba": "linear_attn.in_proj_ba",
    "ssm_beta": "linear_attn.in_proj_b",
    "ssm_alpha": "linear_attn.in_proj_a",
    "ssm_conv1d": "linear_attn.conv1d",
    "ssm_norm": "linear_attn.norm",
    "ssm_out": "linear_attn.out_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.gate_proj",
    "ffn_up_exps": "mlp.experts.up_proj",
    "ffn_down_exps": "mlp.experts.down_proj",
    "ffn_gate_up_exps": "mlp.experts.gate_up_proj",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
WITHOUT_SUFFIX = {"ssm_a": "linear_attn.A_log", "ssm_dt.bias": "linear_attn.dt_bias"}
FUSED: Mapping[str, tuple[str, ...]] = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "in_proj_qkvz": ("in_proj_qkv", "in_proj_z"),
    "in_proj_ba": ("in_proj_b", "in_proj_a"),
    "experts": ("experts.gate_proj", "experts.up_proj", "experts.down_proj"),
}
"""Layers that hold several tensors, each of which may be of a type of its own."""
TAKEN_APART: Mapping[str, tuple[str, ...]] = {
    "linear_attn.in_proj_qkvz": ("linear_attn.in_proj_qkv", "linear_attn.in_proj_z"),
    "linear_attn.in_proj_ba": ("linear_attn.in_proj_b", "linear_attn.in_proj_a"),
    "mlp.experts.gate_up_proj": ("mlp.experts.gate_proj", "mlp.experts.up_proj"),
}
"""Tensors that hold the rows of several projections."""


def model_name(name: str, layers: int) -> str | None:
    """The model's name of the tensor called `name` in a file, None for one that no table knows.

    Layers from `layers` on are of multi-token prediction and keep apart from the model's own.
    """
    match = BLOCK_NAME.match(name)
    if match is None:
        return OUTER.get(name)
    module, _, suffix = match["rest"].rpartition(".")
    known = WITHOUT_SUFFIX.get(match["rest"]) or (f"{IN_LAYER[module]}.{suffix}" if module in IN_LAYER else None)
    outer = "model" if int(match["layer"]) < layers else "mtp"
    return None if known is None else f"{outer}.layers.{match['layer']}.{known}"


def modules_of(name: str) -> tuple[str, ...]:
    """The modules that the model's tensor `name` belongs to: more than one where the tensor is taken apart."""
    module = name.rpartition(".")[0]
    for whole, parts in TAKEN_APART.items():
        if module.endswith(f".{whole}"):
            return tuple(module.removesuffix(whole) + part for part in parts)
    return (module,)


def parts_of(prefix: str) -> tuple[str, ...]:
    """The modules on disk that fill the layer called `prefix`."""
    outer, _, last = prefix.rpartition(".")
    return tuple(f"{outer}.{part}" for part in FUSED[last]) if last in FUSED else (prefix,)


def fused_with(module: str, modules: Iterable[str]) -> tuple[str, ...]:
    """Those of `modules` that share a layer with `module`, itself included."""
    known = frozenset(modules)
    for parts in FUSED.values():
        for part in parts:
            if module.endswith(f".{part}") and not _is_inside_experts(module, part):
                siblings = (module.removesuffix(part) + other for other in parts)
                return tuple(sibling for sibling in siblings if sibling in known)
    return (module,)


def _is_inside_experts(module: str, part: str) -> bool:
    return ".experts." in module and not part.startswith("experts.")
