"""Linear layers and vocabularies in blocks of ggml types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from backends.native.errors import LoadError, ShapeError
from backends.native.kernels.choice import kernel
from backends.native.kernels.reference.ggml_types import GgmlType, ggml_type
from backends.native.layers.linear import FusedColumnLinear, LinearBase, RowParallelLinear
from backends.native.layers.parameter import ModelParameter, require_size
from backends.native.layers.vocab import VocabParallelEmbedding
from backends.native.quantization.config import LinearMethod
from backends.native.quantization.formats.ggml_blocks import HOST, Blocks, Staging, late_parameter

ShardId = int | str | tuple[int, ...] | None


class GGUFLinearMethod(LinearMethod[Any]):
    """`qweight`, and `qweight_type` with one entry per fused projection; one object per layer.

    The blocks stay as they are where the device's kernels read them. Elsewhere they become `weight`, once, after the
    load.
    """

    def create_weights(
        self,
        layer: Any,
        input_size_per_partition: int,
        output_partition_sizes: Sequence[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **extra: Any,
    ) -> None:
        """Register the parameters, of which `qweight` gets its size and memory when all types have come."""
        del input_size, output_size
        self.layer_name, self.params_dtype = layer.prefix, params_dtype
        self.staging = Staging.of(extra)
        self.multiply, self.dequantize = (
            kernel(op, self.staging.kinds, layer.prefix) for op in ("gguf_linear", "dequantize_gguf")
        )
        self.positions = tuple(range(len(output_partition_sizes)))
        self.dequantized: nn.Parameter | None = None
        name = f"{layer.prefix}.qweight"
        self.blocks = Blocks(
            name, dict(zip(self.positions, output_partition_sizes, strict=True)), input_size_per_partition
        )

        def load_blocks(param: nn.Parameter, loaded_weight: Tensor, shard_id: ShardId = None) -> None:
            self.load_blocks(layer, param, loaded_weight, shard_id)

        def load_type(param: nn.Parameter, loaded_weight: Tensor, shard_id: ShardId = None) -> None:
            self.load_type(layer, param, loaded_weight, shard_id)

        layer.qweight_type = ModelParameter(
            torch.zeros(len(self.positions), dtype=torch.uint8),
            full_name=f"{layer.prefix}.qweight_type",
            weight_loader=load_type,
            shard_dim=0,
        )
        layer.qweight = late_parameter(name, load_blocks, self.staging.blocks_device)

    def load_type(self, layer: Any, param: nn.Parameter, loaded_weight: Tensor, shard_id: ShardId) -> None:
        """Note the type of the projections in a tensor; raises CheckpointError for one that is not known."""
        known = ggml_type(int(loaded_weight), f"{self.layer_name}.qweight_type")
        for position in positions_of(layer, shard_id):
            param.data[position].fill_(known.number)
            self.blocks.set_type(layer.qweight, position, known)

    def load_blocks(self, layer: Any, param: nn.Parameter, loaded_weight: Tensor, shard_id: ShardId) -> None:
        """Copy this rank's rows, or its columns in whole blocks; raises ShapeError."""
        positions, name = positions_of(layer, shard_id), self.blocks.full_name
        if isinstance(layer, FusedColumnLinear):
            sizes = [layer.output_sizes[position] for position in positions]
            require_size(loaded_weight, 0, sum(sizes), name)
            for position, part in zip(positions, torch.split(loaded_weight, sizes), strict=True):
                own = layer.output_partition_sizes[position]
                self.blocks.put(param, position, part.narrow(0, layer.source_rank(position) * own, own))
        else:
            self.blocks.put(param, 0, self._part_of_rank(layer, loaded_weight))

    def _part_of_rank(self, layer: Any, loaded_weight: Tensor) -> Tensor:
        if isinstance(layer, RowParallelLinear):
            row_bytes = self.blocks.row_bytes(0)
            require_size(loaded_weight, 1, row_bytes * layer.tp_size, self.blocks.full_name)
            return loaded_weight.narrow(1, layer.tp_rank * row_bytes, row_bytes)
        if isinstance(layer, VocabParallelEmbedding):
            require_size(loaded_weight, 0, layer.vocab_size, self.blocks.full_name)
            start = min(layer.first_id, layer.vocab_size)
            return loaded_weight.narrow(0, start, min(layer.vocab_size_per_partition, layer.vocab_size - start))
        require_size(loaded_weight, 0, self.blocks.rows[0], self.blocks.full_name)
        return loaded_weight

    def process_weights_after_loading(self, layer: Any) -> None:
        """Dequantize into the model's dtype where the device has no kernels for blocks."""
        if self.staging.keeps_blocks:
            return
        if self.dequantized is None:
            self.dequantized = nn.Parameter(self.whole(layer), requires_grad=False)
        # A tied head comes second, with the same method.
        del layer.qweight, layer.qweight_type
        layer.register_parameter("weight", self.dequantized)

    def whole(self, layer: Any) -> Tensor:
        """The weight [rows, columns] in the model's dtype, made on the host and moved to the device."""
        shape = (sum(self.blocks.rows.values()), self.blocks.columns)
        output = torch.empty(shape, dtype=self.params_dtype, device=HOST)
        start = 0
        for known, blocks in self.runs(layer):
            output[start : start + blocks.shape[0]] = self.dequantize(blocks, known.number, self.params_dtype)
            start += blocks.shape[0]
        return output.to(self.staging.device)

    def runs(self, layer: Any) -> list[tuple[GgmlType, Tensor]]:
        """The blocks by type; raises LoadError for a layer that nothing was loaded into."""
        if not self.blocks.places:
            raise LoadError(f"{self.blocks.full_name} was never filled.", "compare its name with those in the file")
        return list(self.blocks.runs(layer.qweight, self.positions))

    def apply(self, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """`x` [tokens, input] -> [tokens, output] in the dtype of `x`, one product per run of one type."""
        if not self.staging.keeps_blocks:
            return nn.functional.linear(x, layer.weight, bias)
        outputs, start = [], 0
        for known, blocks in self.runs(layer):
            own = None if bias is None else bias[start : start + blocks.shape[0]]
            outputs.append(self.multiply(x, blocks, known.number, own))
            start += blocks.shape[0]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)


class GGUFTiledLinearMethod(GGUFLinearMethod):
    """The projection out of a delta net, whose columns the file has in another order than the model's value heads.

    The file has the first value head of each key head, then the second of each, and so on. Blocks run across
    heads, so they stay in the file's order, and the input is brought into it.
    """

    def __init__(self, values_per_key: int, head_dim: int) -> None:
        self.values_per_key, self.head_dim = values_per_key, head_dim

    def _part_of_rank(self, layer: Any, loaded_weight: Tensor) -> Tensor:
        """The columns of this rank's key heads, a run of whole blocks for each of their value heads."""
        row_bytes = self.blocks.row_bytes(0)
        require_size(loaded_weight, 1, row_bytes * layer.tp_size, self.blocks.full_name)
        block_bytes = self.blocks.type_of(0).block_bytes
        if row_bytes % (self.values_per_key * block_bytes):
            raise ShapeError(
                f"{self.blocks.full_name} is {self.blocks.type_of(0).name}: a rank's {self.values_per_key} runs of "
                f"columns, one per value head of a key head, are {row_bytes} bytes, no whole blocks of {block_bytes}.",
                "choose a smaller tp_size, or convert this tensor to a type with blocks of 32, such as Q8_0",
            )
        size = row_bytes // self.values_per_key
        runs = loaded_weight.view(loaded_weight.shape[0], self.values_per_key, -1)
        return runs.narrow(2, layer.tp_rank * size, size).reshape(loaded_weight.shape[0], row_bytes)

    def whole(self, layer: Any) -> Tensor:
        """The weight with its columns in the model's order."""
        weight = super().whole(layer)
        return weight.view(weight.shape[0], self.values_per_key, -1, self.head_dim).transpose(1, 2).flatten(1)

    def apply(self, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """`x` in the model's order of heads."""
        if self.staging.keeps_blocks:
            heads = x.view(x.shape[0], -1, self.values_per_key, self.head_dim)
            x = heads.transpose(1, 2).reshape(x.shape)
        return super().apply(layer, x, bias)


class GGUFEmbeddingMethod(GGUFLinearMethod):
    """An embedding or a head: rows are taken as blocks, and only those taken are dequantized."""

    def embedding(self, layer: VocabParallelEmbedding, local_ids: Tensor) -> Tensor:
        """int64 [tokens] -> [tokens, hidden] in the model's dtype."""
        if not self.staging.keeps_blocks:
            return super().embedding(layer, local_ids)
        ((known, blocks),) = self.runs(layer)
        rows: Tensor = self.dequantize(blocks[local_ids], known.number, self.params_dtype)
        return rows


def positions_of(layer: LinearBase | VocabParallelEmbedding, shard_id: ShardId) -> list[int]:
    """Which of the layer's projections a shard id means; all where there is none."""
    if not isinstance(layer, FusedColumnLinear):
        return [0]
    if shard_id is None:
        return list(range(len(layer.output_sizes)))
    return [layer.position(one) for one in (shard_id if isinstance(shard_id, tuple) else (shard_id,))]
