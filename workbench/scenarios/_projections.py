"""Sizes of small hybrid models for scenarios about the input projections of linear attention."""

from __future__ import annotations

from collections.abc import Mapping

LAYERS = 3
FULL_ATTENTION_LAYER = 2
LINEAR_ATTENTION_LAYERS = (0, 1)
SIZES: Mapping[str, object] = {
    "vocab_size": 256,
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "full_attention_interval": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "linear_num_key_heads": 4,
    "linear_key_head_dim": 32,
    "linear_num_value_heads": 8,
    "linear_value_head_dim": 32,
}
"""`in_proj_qkvz` has 768 rows, of which each of 4 ranks takes 192: 32 + 32 + 64 + 64 of every key head."""


def names(module: str) -> list[str]:
    """A module of every linear attention layer, `module` being its name below `linear_attn`."""
    return [f"layers.{layer}.linear_attn.{module}" for layer in LINEAR_ATTENTION_LAYERS]
