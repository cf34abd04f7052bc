"""Linear layers and how each takes its rank's part of the tensors on disk."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from backends.native.errors import ShapeError
from backends.native.layers.build import Build
from backends.native.layers.parameter import (
    ModelParameter,
    ShardedParameter,
    contiguous_slice,
    copy_checked,
    default_weight_loader,
    fill_shards,
    require_size,
)
from backends.native.parallel.groups import all_reduce, divide, tp_rank, tp_size
from backends.native.quantization.config import LinearMethod

QKV = ("q", "k", "v")


class LinearBase(nn.Module):
    """A linear layer whose parameters its quantization method creates.

    `output_sizes` are the outputs of the fused projections, `output_partition_sizes` this rank's part of each.
    """

    quant_method: LinearMethod[LinearBase]
    weight: ModelParameter
    bias: ModelParameter | None

    def __init__(
        self,
        input_size: int,
        output_sizes: Sequence[int],
        *,
        input_size_per_partition: int,
        output_partition_sizes: Sequence[int],
        build: Build,
        prefix: str,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.prefix = prefix
        self.tp_rank, self.tp_size = tp_rank(), tp_size()
        self.output_sizes, self.output_partition_sizes = tuple(output_sizes), tuple(output_partition_sizes)
        self.quant_method = build.quant_config.get_quant_method(self, prefix)
        self.quant_method.create_weights(
            self,
            input_size_per_partition,
            list(output_partition_sizes),
            input_size,
            sum(output_sizes),
            build.params_dtype,
            weight_loader=self.weight_loader,
            kernels=build.kernels,
            keeps_quantized_blocks=build.keeps_quantized_blocks,
        )
        self.bias = self._bias(build.params_dtype) if bias else None

    def _bias(self, dtype: torch.dtype) -> ModelParameter:
        data = torch.empty(sum(self.output_partition_sizes), dtype=dtype)
        return ModelParameter(data, full_name=f"{self.prefix}.bias", output_dim=0, weight_loader=self.weight_loader)

    @abstractmethod
    def weight_loader(self, param: ShardedParameter, loaded_weight: Tensor) -> None:
        """Copy this rank's part of a tensor on disk into `param`; raises ShapeError."""

    def forward(self, x: Tensor) -> Tensor:
        """[tokens, input] -> [tokens, output], of which this rank has its part."""
        return self.quant_method.apply(self, x, self.bias)


class ReplicatedLinear(LinearBase):
    """Every rank holds the whole weight."""

    def __init__(self, input_size: int, output_size: int, *, build: Build, prefix: str, bias: bool = False) -> None:
        super().__init__(
            input_size,
            [output_size],
            input_size_per_partition=input_size,
            output_partition_sizes=[output_size],
            build=build,
            prefix=prefix,
            bias=bias,
        )

    def weight_loader(self, param: ShardedParameter, loaded_weight: Tensor) -> None:
        """Copy the whole tensor."""
        default_weight_loader(param, loaded_weight)


class FusedColumnLinear(LinearBase):
    """Several projections of one input, each split by output among the ranks."""

    def position(self, shard_id: int | str) -> int:
        """Which projection a shard id means."""
        return int(shard_id)

    def source_rank(self, position: int) -> int:
        """Which slice of that projection this rank holds."""
        del position
        return self.tp_rank

    def weight_loader(
        self, param: ShardedParameter, loaded_weight: Tensor, shard_id: int | str | tuple[int, ...] | None = None
    ) -> None:
        """Load one projection, or a tensor that holds several (a tuple) or all (None) of them one after the other.

        What there is one of per tensor on disk, such as a scale of one element, goes to each of those projections.
        Raises ShapeError where the tensor is larger or smaller than the projections it should hold.
        """
        positions = self._positions(shard_id)
        if param.shard_dim is not None:
            fill_shards(param.data, loaded_weight, positions, param.full_name)
            return
        if param.output_dim is None:
            default_weight_loader(param, loaded_weight)
            return
        sizes = [param.output_blocks(self.output_sizes[position]) for position in positions]
        require_size(loaded_weight, param.output_dim, sum(sizes), param.full_name)
        for position, part in zip(positions, torch.split(loaded_weight, sizes, param.output_dim), strict=True):
            self._load_shard(param, part, position, param.output_dim)

    def _positions(self, shard_id: int | str | tuple[int, ...] | None) -> list[int]:
        if shard_id is None:
            return list(range(len(self.output_sizes)))
        return [self.position(one) for one in (shard_id if isinstance(shard_id, tuple) else (shard_id,))]

    def _load_shard(self, param: ShardedParameter, part: Tensor, position: int, dim: int) -> None:
        offset = param.output_blocks(sum(self.output_partition_sizes[:position]))
        size = param.output_blocks(self.output_partition_sizes[position])
        source = part.narrow(dim, self.source_rank(position) * size, size)
        copy_checked(param.data.narrow(dim, offset, size), source, param.full_name)


class MergedColumnParallelLinear(FusedColumnLinear):
    """Projections of any sizes; a shard id is a projection's position."""

    def __init__(
        self, input_size: int, output_sizes: Sequence[int], *, build: Build, prefix: str, bias: bool = False
    ) -> None:
        super().__init__(
            input_size,
            output_sizes,
            input_size_per_partition=input_size,
            output_partition_sizes=[divide(size, tp_size(), f"{prefix} output_size") for size in output_sizes],
            build=build,
            prefix=prefix,
            bias=bias,
        )


class QKVParallelLinear(FusedColumnLinear):
    """Query, key and value; where ranks outnumber the KV heads, neighbouring ranks hold copies of one head."""

    def __init__(
        self,
        hidden_size: int,
        head_size: int,
        total_num_heads: int,
        total_num_kv_heads: int,
        *,
        build: Build,
        prefix: str,
        bias: bool = False,
    ) -> None:
        kv_parts = min(tp_size(), total_num_kv_heads)
        self.kv_head_replicas = divide(tp_size(), kv_parts, f"{prefix}: tp_size per key/value head")
        heads = divide(total_num_heads, tp_size(), f"{prefix} num_heads")
        kv_heads = divide(total_num_kv_heads, kv_parts, f"{prefix} num_key_value_heads")
        super().__init__(
            hidden_size,
            [total_num_heads * head_size, total_num_kv_heads * head_size, total_num_kv_heads * head_size],
            input_size_per_partition=hidden_size,
            output_partition_sizes=[heads * head_size, kv_heads * head_size, kv_heads * head_size],
            build=build,
            prefix=prefix,
            bias=bias,
        )

    def position(self, shard_id: int | str) -> int:
        """Shard ids are "q", "k" and "v"."""
        if shard_id not in QKV:
            raise ShapeError(f"{self.prefix} has the shards {QKV}, not {shard_id!r}.", "pass one of them as shard_id")
        return QKV.index(shard_id)

    def source_rank(self, position: int) -> int:
        """The queries are split among all ranks, keys and values among groups of ranks."""
        return self.tp_rank if position == 0 else self.tp_rank // self.kv_head_replicas


class RowParallelLinear(LinearBase):
    """Split by input among the ranks; the partial outputs are summed unless `reduce_results` is False."""

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        build: Build,
        prefix: str,
        bias: bool = False,
        reduce_results: bool = True,
    ) -> None:
        super().__init__(
            input_size,
            [output_size],
            input_size_per_partition=divide(input_size, tp_size(), f"{prefix} input_size"),
            output_partition_sizes=[output_size],
            build=build,
            prefix=prefix,
            bias=bias,
        )
        self.reduce_results = reduce_results

    def weight_loader(self, param: ShardedParameter, loaded_weight: Tensor) -> None:
        """Copy this rank's contiguous slice of the input dimension; what has none, as a bias, is copied whole."""
        if param.input_dim is None:
            default_weight_loader(param, loaded_weight)
        else:
            if param.shard_dim is not None:
                loaded_weight = loaded_weight.unsqueeze(param.shard_dim)
            source = contiguous_slice(param, loaded_weight, param.input_dim, self.tp_rank, self.tp_size)
            copy_checked(param.data, source, param.full_name)

    def forward(self, x: Tensor) -> Tensor:
        """[tokens, input_size_per_partition] -> [tokens, output]."""
        # One rank adds the bias, or the sum would hold it tp_size times.
        bias = self.bias if self.tp_rank == 0 else None
        output = self.quant_method.apply(self, x, bias)
        return all_reduce(output) if self.reduce_results else output
