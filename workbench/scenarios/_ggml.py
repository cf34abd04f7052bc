"""Sizes of small models whose weights are stored in blocks of 256 elements, whole ones for each of two ranks."""

from __future__ import annotations

from collections.abc import Mapping

DEVICE = "simulated-npu"
TP = 2
SIZES: Mapping[str, object] = {
    "vocab_size": 256,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
}
