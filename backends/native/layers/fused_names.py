"""Which projections on disk are one module here, as several architectures have it."""

from __future__ import annotations

from backends.native.weights import ShardId

Parts = dict[str, tuple[str, ...]]
Stacked = dict[str, tuple[str, ShardId]]

DENSE_PARTS: Parts = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
DENSE_STACKED: Stacked = {
    "q_proj": ("qkv_proj", "q"),
    "k_proj": ("qkv_proj", "k"),
    "v_proj": ("qkv_proj", "v"),
    "gate_proj": ("gate_up_proj", 0),
    "up_proj": ("gate_up_proj", 1),
}

EXPERT_PARTS: Parts = {"experts": ("experts.0.gate_proj", "experts.0.up_proj", "experts.0.down_proj")}
"""Experts are decided by the names of expert 0."""

DELTA_NET_PARTS: Parts = {"in_proj_qkvz": ("in_proj_qkv", "in_proj_z"), "in_proj_ba": ("in_proj_b", "in_proj_a")}
"""Only of architectures that publish the input projections apart: whole tensors have no parts to expand into."""
DELTA_NET_STACKED: Stacked = {
    "in_proj_qkv": ("in_proj_qkvz", (0, 1, 2)),
    "in_proj_z": ("in_proj_qkvz", 3),
    "in_proj_b": ("in_proj_ba", 0),
    "in_proj_a": ("in_proj_ba", 1),
}
