"""Linear attention by the gated delta rule, with its fused input projections and short convolution."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backends.native.checkpoint.spec import TensorSpec
from backends.native.kernels.choice import kernel
from backends.native.layers.build import Build
from backends.native.layers.cache import DeltaNetCache
from backends.native.layers.layernorm import RMSNormGated
from backends.native.layers.linear import MergedColumnParallelLinear, RowParallelLinear
from backends.native.layers.parameter import (
    ModelParameter,
    ShardedParameter,
    copy_checked,
    replace_weight_loader,
    require_size,
    sharded_weight_loader,
)
from backends.native.parallel.groups import divide, tp_rank, tp_size


@dataclass(frozen=True)
class DeltaNetShape:
    """Sizes of the whole layer, before it is split among ranks.

    `is_packed` says how the input projections are stored: as two whole tensors, packed in one group per key head with
    that head's values inside, or as four tensors, of which `in_proj_qkv` holds three projections one after the other.
    """

    hidden_size: int
    num_k_heads: int
    num_v_heads: int
    head_k_dim: int
    head_v_dim: int
    conv_kernel_size: int
    rms_norm_eps: float
    is_packed: bool

    @property
    def key_dim(self) -> int:
        """Elements of all keys of a token, and of all queries."""
        return self.num_k_heads * self.head_k_dim

    @property
    def value_dim(self) -> int:
        """Elements of all values of a token, and of all output gates z."""
        return self.num_v_heads * self.head_v_dim

    @property
    def channels(self) -> int:
        """Channels of the convolution: all queries, keys and values."""
        return 2 * self.key_dim + self.value_dim

    @property
    def modules_to_not_convert(self) -> tuple[str, ...]:
        """What published quantized checkpoints keep in the model's dtype; the names are those on disk."""
        return ("conv1d", *(("in_proj_ba", "in_proj_qkvz") if self.is_packed else ("in_proj_b", "in_proj_a")))


class CausalConv1d(nn.Module):
    """The depthwise convolution over query, key and value channels, `weight` [channels, 1, kernel]."""

    def __init__(self, channel_groups: Iterable[int], kernel_size: int, *, build: Build, prefix: str) -> None:
        super().__init__()
        self.tp_rank, self.tp_size = tp_rank(), tp_size()
        self.channel_groups = tuple(channel_groups)
        channels = divide(sum(self.channel_groups), self.tp_size, f"{prefix} channels")
        self.weight = ModelParameter(
            torch.empty(channels, 1, kernel_size, dtype=build.params_dtype),
            full_name=f"{prefix}.weight",
            weight_loader=self.weight_loader,
            output_dim=0,
        )
        self.causal_conv1d = kernel("causal_conv1d", build.kernels, prefix)

    def weight_loader(self, param: ModelParameter, loaded_weight: Tensor) -> None:
        """Copy this rank's slice of each group of channels: a slice of the whole would mix queries with keys."""
        require_size(loaded_weight, 0, sum(self.channel_groups), param.full_name)
        offset = 0
        for group in torch.split(loaded_weight, list(self.channel_groups)):
            size = group.shape[0] // self.tp_size
            source = group.narrow(0, self.tp_rank * size, size)
            copy_checked(param.data.narrow(0, offset, size), source, param.full_name)
            offset += size

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """[tokens, channels] and the inputs before them -> silu of the convolution, and the state after them."""
        convolved: tuple[Tensor, Tensor] = self.causal_conv1d(x, self.weight.squeeze(1), state)
        return convolved


class GatedDeltaNet(nn.Module):
    """Each rank holds its part of the key heads and of the value heads that belong to them."""

    def __init__(self, shape: DeltaNetShape, *, build: Build, prefix: str) -> None:
        super().__init__()
        self.shape = shape
        ranks = tp_size()
        self.num_k_heads = divide(shape.num_k_heads, ranks, f"{prefix} linear_num_key_heads")
        self.num_v_heads = divide(shape.num_v_heads, ranks, f"{prefix} linear_num_value_heads")
        key_dim, value_dim = shape.key_dim, shape.value_dim
        self.in_proj_qkvz = MergedColumnParallelLinear(
            shape.hidden_size, [key_dim, key_dim, value_dim, value_dim], build=build, prefix=f"{prefix}.in_proj_qkvz"
        )
        self.in_proj_ba = MergedColumnParallelLinear(
            shape.hidden_size, [shape.num_v_heads] * 2, build=build, prefix=f"{prefix}.in_proj_ba"
        )
        if shape.is_packed:
            load_packed(self.in_proj_qkvz)
            load_packed(self.in_proj_ba)
        self.conv1d = CausalConv1d(
            (key_dim, key_dim, value_dim), shape.conv_kernel_size, build=build, prefix=f"{prefix}.conv1d"
        )
        slice_loader = sharded_weight_loader(tp_rank(), ranks)
        self.dt_bias = self._per_head(f"{prefix}.dt_bias", build.params_dtype, slice_loader)
        self.A_log = self._per_head(f"{prefix}.A_log", torch.float32, slice_loader)
        self.norm = RMSNormGated(shape.head_v_dim, shape.rms_norm_eps, build=build, prefix=f"{prefix}.norm")
        self.out_proj = RowParallelLinear(value_dim, shape.hidden_size, build=build, prefix=f"{prefix}.out_proj")
        self.gated_delta_rule, self.chunk_gated_delta_rule = (
            kernel(op, build.kernels, prefix) for op in ("gated_delta_rule", "chunk_gated_delta_rule")
        )
        self.split_projections = kernel("fused_qkvzba_split_reshape_cat", build.kernels, prefix)

    def _per_head(self, name: str, dtype: torch.dtype, loader: Callable[[Tensor, Tensor], None]) -> ModelParameter:
        return ModelParameter(
            torch.empty(self.num_v_heads, dtype=dtype), full_name=name, weight_loader=loader, output_dim=0
        )

    def forward(self, x: Tensor, cache: DeltaNetCache | None) -> Tensor:
        """[tokens, hidden] -> [tokens, hidden]; the tokens follow those the cache has seen."""
        shape = self.shape
        mixed_qkv, z, b, a = self._split(self.in_proj_qkvz(x), self.in_proj_ba(x))
        mixed_qkv, conv_state = self.conv1d(mixed_qkv, cache.conv if cache else None)
        key_dim = self.num_k_heads * shape.head_k_dim
        query, key, value = mixed_qkv.split((key_dim, key_dim, self.num_v_heads * shape.head_v_dim), dim=-1)
        decay = -self.A_log.exp() * nn.functional.softplus(a.float() + self.dt_bias)
        rule = self.gated_delta_rule if x.shape[0] == 1 else self.chunk_gated_delta_rule
        attended, recurrent_state = rule(
            query.unflatten(-1, (self.num_k_heads, -1)),
            key.unflatten(-1, (self.num_k_heads, -1)),
            value.unflatten(-1, (self.num_v_heads, -1)),
            decay,
            b.sigmoid(),
            cache.recurrent if cache else None,
        )
        if cache is not None:
            cache.conv, cache.recurrent = conv_state, recurrent_state
        output: Tensor = self.out_proj(self.norm(attended, z).flatten(-2))
        return output

    def _split(self, qkvz: Tensor, ba: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """mixed_qkv [tokens, channels], z [tokens, v_heads, v_dim], b and a [tokens, v_heads]."""
        shape, heads = self.shape, (self.num_k_heads, self.num_v_heads)
        if shape.is_packed:
            packed: tuple[Tensor, Tensor, Tensor, Tensor]
            packed = self.split_projections(qkvz, ba, *heads, shape.head_k_dim, shape.head_v_dim)
            return packed
        z_size = self.in_proj_qkvz.output_partition_sizes[-1]
        mixed_qkv, z = torch.split(qkvz, [qkvz.shape[-1] - z_size, z_size], dim=-1)
        b, a = ba.chunk(2, dim=-1)
        return mixed_qkv, z.reshape(-1, self.num_v_heads, shape.head_v_dim), b, a


def load_packed(projection: MergedColumnParallelLinear) -> None:
    """Let every parameter of a packed projection, scales included, take one contiguous slice per rank.

    The merged layer's own loader would take the tensor for projections stored one after the other, and cut it wrongly.
    """
    packed_weight_loader = sharded_weight_loader(projection.tp_rank, projection.tp_size)
    for parameter in projection.parameters():
        if isinstance(parameter, ShardedParameter):
            replace_weight_loader(parameter, packed_weight_loader)


def delta_net_tensors(shape: DeltaNetShape, prefix: str, dtype: torch.dtype) -> Iterator[TensorSpec]:
    """What the layer called `prefix` is on disk."""
    rows = (
        {"in_proj_qkvz": shape.channels + shape.value_dim, "in_proj_ba": 2 * shape.num_v_heads}
        if shape.is_packed
        else {
            "in_proj_qkv": shape.channels,
            "in_proj_z": shape.value_dim,
            "in_proj_b": shape.num_v_heads,
            "in_proj_a": shape.num_v_heads,
        }
    )
    for proj, size in rows.items():
        yield TensorSpec(f"{prefix}.{proj}.weight", (size, shape.hidden_size), dtype, quantizable=True)
    yield TensorSpec(f"{prefix}.conv1d.weight", (shape.channels, 1, shape.conv_kernel_size), dtype, std=0.3)
    yield TensorSpec(f"{prefix}.dt_bias", (shape.num_v_heads,), dtype, mean=1.0)
    yield TensorSpec(f"{prefix}.A_log", (shape.num_v_heads,), torch.float32, mean=1.0, std=0.7)
    yield TensorSpec(f"{prefix}.norm.weight", (shape.head_v_dim,), dtype, mean=1.0)
    yield TensorSpec(f"{prefix}.out_proj.weight", (shape.hidden_size, shape.value_dim), dtype, quantizable=True)
