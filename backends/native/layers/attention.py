"""Full attention with query and key norms, partial rotary embedding and a sigmoid gate on its output."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backends.native.kernels.reference.causal_attention import causal_attention
from backends.native.kernels.reference.rotary import rotary
from backends.native.layers.build import Build
from backends.native.layers.cache import AttentionCache
from backends.native.layers.layernorm import RMSNorm
from backends.native.layers.linear import QKVParallelLinear, RowParallelLinear


@dataclass(frozen=True)
class AttentionShape:
    """Sizes of the whole layer, before it is split among ranks."""

    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    has_bias: bool
    rms_norm_eps: float


class GatedAttention(nn.Module):
    """`q_proj` on disk holds, head by head, the query and then the gate of that head."""

    def __init__(self, shape: AttentionShape, *, build: Build, prefix: str) -> None:
        super().__init__()
        self.head_dim = shape.head_dim
        self.qkv_proj = QKVParallelLinear(
            shape.hidden_size,
            shape.head_dim,
            2 * shape.num_heads,
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
        self.q_norm = self._head_norm(shape, build, f"{prefix}.q_norm")
        self.k_norm = self._head_norm(shape, build, f"{prefix}.k_norm")

    @staticmethod
    def _head_norm(shape: AttentionShape, build: Build, prefix: str) -> RMSNorm:
        return RMSNorm(shape.head_dim, shape.rms_norm_eps, build=build, prefix=prefix, is_zero_centered=True)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: AttentionCache | None) -> Tensor:
        """[tokens, hidden] -> [tokens, hidden]; the tokens follow those in the cache and join them."""
        projected = self.qkv_proj(x).split(self.qkv_proj.output_partition_sizes, dim=-1)
        q_and_gate, key, value = (part.unflatten(-1, (-1, self.head_dim)) for part in projected)
        query, gate = q_and_gate.unflatten(-2, (-1, 2)).unbind(-2)
        query, key = rotary(self.q_norm(query), cos, sin), rotary(self.k_norm(key), cos, sin)
        if cache is not None:
            key, value = cache.extended(key, value)
        attended = causal_attention(query, key, value) * torch.sigmoid(gate)
        output: Tensor = self.o_proj(attended.flatten(-2))
        return output
