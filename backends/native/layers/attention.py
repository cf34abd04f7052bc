"""Full attention, with norms of the query and key heads and a sigmoid gate on its output where a model has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backends.native.checkpoint.spec import TensorSpec
from backends.native.kernels.choice import kernel
from backends.native.layers.build import Build
from backends.native.layers.cache import AttentionCache
from backends.native.layers.layernorm import RMSNorm
from backends.native.layers.linear import QKVParallelLinear, RowParallelLinear


@dataclass(frozen=True)
class AttentionShape:
    """Sizes of the whole layer, before it is split among ranks.

    With an output gate, `q_proj` on disk holds, head by head, the query and then the gate of that head.
    """

    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    has_bias: bool
    rms_norm_eps: float
    has_head_norms: bool = False
    has_zero_centered_norms: bool = False
    has_output_gate: bool = False

    @property
    def num_query_heads(self) -> int:
        """Heads of `q_proj`: the queries, and the gates where there are some."""
        return self.num_heads * (2 if self.has_output_gate else 1)


class Attention(nn.Module):
    """Each rank holds its part of the heads."""

    def __init__(self, shape: AttentionShape, *, build: Build, prefix: str) -> None:
        super().__init__()
        self.shape = shape
        self.qkv_proj = QKVParallelLinear(
            shape.hidden_size,
            shape.head_dim,
            shape.num_query_heads,
            shape.num_kv_heads,
            build=build,
            prefix=f"{prefix}.qkv_proj",
            bias=shape.has_bias,
        )
        self.o_proj = RowParallelLinear(
            shape.num_heads * shape.head_dim,
            shape.hidden_size,
            build=build,
            prefix=f"{prefix}.o_proj",
            bias=shape.has_bias,
        )
        self.q_norm, self.k_norm = (
            self._head_norm(build, f"{prefix}.{name}") if shape.has_head_norms else None
            for name in ("q_norm", "k_norm")
        )
        self.rotary, self.causal_attention = (
            kernel(op, build.kernels, prefix) for op in ("rotary", "causal_attention")
        )

    def _head_norm(self, build: Build, prefix: str) -> RMSNorm:
        shape = self.shape
        is_zero_centered = shape.has_zero_centered_norms
        return RMSNorm(
            shape.head_dim, shape.rms_norm_eps, build=build, prefix=prefix, is_zero_centered=is_zero_centered
        )

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: AttentionCache | None) -> Tensor:
        """[tokens, hidden] -> [tokens, hidden]; the tokens follow those in the cache and join them."""
        projected = self.qkv_proj(x).split(self.qkv_proj.output_partition_sizes, dim=-1)
        query, key, value = (part.unflatten(-1, (-1, self.shape.head_dim)) for part in projected)
        gate = None
        if self.shape.has_output_gate:
            query, gate = query.unflatten(-2, (-1, 2)).unbind(-2)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        query, key = self.rotary(query, cos, sin), self.rotary(key, cos, sin)
        if cache is not None:
            key, value = cache.extended(key, value)
        attended = self.causal_attention(query, key, value)
        if gate is not None:
            attended = attended * torch.sigmoid(gate)
        output: Tensor = self.o_proj(attended.flatten(-2))
        return output


def attention_tensors(shape: AttentionShape, prefix: str, dtype: torch.dtype) -> Iterator[TensorSpec]:
    """What the layer called `prefix` is on disk."""
    hidden, queries, keys = (
        shape.hidden_size,
        shape.num_query_heads * shape.head_dim,
        shape.num_kv_heads * shape.head_dim,
    )
    for proj, size in {
        "q_proj": (queries, hidden),
        "k_proj": (keys, hidden),
        "v_proj": (keys, hidden),
        "o_proj": (hidden, shape.num_heads * shape.head_dim),
    }.items():
        yield TensorSpec(f"{prefix}.{proj}.weight", size, dtype, quantizable=True)
        if shape.has_bias:
            yield TensorSpec(f"{prefix}.{proj}.bias", size[:1], dtype)
    if shape.has_head_norms:
        mean = 0.0 if shape.has_zero_centered_norms else 1.0
        for norm in ("q_norm", "k_norm"):
            yield TensorSpec(f"{prefix}.{norm}.weight", (shape.head_dim,), dtype, mean=mean)
