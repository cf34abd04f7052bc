"""Fused experts in blocks of ggml types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from backends.native.errors import ShapeError
from backends.native.kernels.choice import kernel
from backends.native.kernels.reference.fused_moe import Linear, run_experts
from backends.native.kernels.reference.ggml_types import GgmlType, ggml_type
from backends.native.layers.moe import FusedMoE
from backends.native.layers.parameter import ModelParameter, name_of, require_size
from backends.native.quantization.config import MoEMethod
from backends.native.quantization.formats.ggml_blocks import HOST, Blocks, Staging, late_parameter

WeightLoader = Callable[..., None]
SHARDS = {"w13": ("w1", "w3"), "w2": ("w2",)}


class GGUFMoEMethod(MoEMethod[FusedMoE]):
    """`w13_qweight` (gate over up) and `w2_qweight` with their types, one per projection and expert."""

    def create_weights(
        self,
        layer: FusedMoE,
        input_size_per_partition: int,
        output_partition_sizes: Sequence[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **extra: Any,
    ) -> None:
        """Register the parameters, which get their memory when the types of all experts have come."""
        del input_size, output_size
        self.params_dtype, self.experts = params_dtype, int(extra["num_experts"])
        self.staging = Staging.of(extra)
        self.multiply, self.dequantize = (
            kernel(op, self.staging.kinds, layer.prefix) for op in ("gguf_linear", "dequantize_gguf")
        )
        self.run_plain = kernel("fused_moe", extra["kernels"], layer.prefix)
        intermediate, hidden = output_partition_sizes[0], input_size_per_partition
        self.blocks = {
            "w13": self._blocks(f"{layer.prefix}.w13_qweight", SHARDS["w13"], intermediate, hidden),
            "w2": self._blocks(f"{layer.prefix}.w2_qweight", SHARDS["w2"], hidden, intermediate),
        }
        for stem, blocks in self.blocks.items():
            name = f"{stem}_qweight_type"
            types = ModelParameter(
                torch.zeros(self.experts, len(SHARDS[stem]), dtype=torch.uint8),
                full_name=f"{layer.prefix}.{name}",
                weight_loader=self._type_loader(layer, stem),
                shard_dim=1,
            )
            layer.register_parameter(name, types)
            loader = self._block_loader(layer, stem)
            late = late_parameter(blocks.full_name, loader, self.staging.blocks_device, self.experts)
            setattr(layer, f"{stem}_qweight", late)

    def _blocks(self, name: str, shards: Sequence[str], rows: int, columns: int) -> Blocks:
        keys = [(expert, shard) for expert in range(self.experts) for shard in shards]
        return Blocks(name, dict.fromkeys(keys, rows), columns, self.experts)

    def _type_loader(self, layer: FusedMoE, stem: str) -> WeightLoader:
        def load_type(param: nn.Parameter, loaded_weight: Tensor, shard_id: str, expert_id: int) -> None:
            self._require_expert(param, expert_id)
            known = ggml_type(int(loaded_weight), f"{layer.prefix}.{stem}_qweight_type")
            param.data[expert_id, SHARDS[stem].index(shard_id)].fill_(known.number)
            self.blocks[stem].set_type(layer.get_parameter(f"{stem}_qweight"), (expert_id, shard_id), known)

        return load_type

    def _block_loader(self, layer: FusedMoE, stem: str) -> WeightLoader:
        """A loader of this rank's rows of gate and up, or columns of down, in whole blocks; raises ShapeError."""
        blocks, dim = self.blocks[stem], 1 if stem == "w2" else 0

        def load_blocks(param: nn.Parameter, loaded_weight: Tensor, shard_id: str, expert_id: int) -> None:
            self._require_expert(param, expert_id)
            key = (expert_id, shard_id)
            size = blocks.row_bytes(key) if dim else blocks.rows[key]
            require_size(loaded_weight, dim, size * layer.tp_size, f"{blocks.full_name} expert {expert_id} {shard_id}")
            blocks.put(param, key, loaded_weight.narrow(dim, layer.tp_rank * size, size))

        return load_blocks

    def _require_expert(self, param: nn.Parameter, expert_id: int) -> None:
        if not 0 <= expert_id < self.experts:
            raise ShapeError(
                f"{name_of(param)} has {self.experts} experts, the tensor is of expert {expert_id}.",
                "compare expert_count in the metadata with the first size of the tensors of experts",
            )

    def process_weights_after_loading(self, layer: FusedMoE) -> None:
        """Dequantize into `w13_weight` and `w2_weight` in the model's dtype where the device reads no blocks."""
        if self.staging.keeps_blocks:
            return
        for stem, blocks in self.blocks.items():
            rows = sum(blocks.rows.values()) // self.experts
            weight = torch.empty(self.experts, rows, blocks.columns, dtype=self.params_dtype, device=HOST)
            for expert in range(self.experts):
                start = 0
                for known, part in self._runs(layer, stem, expert):
                    weight[expert, start : start + part.shape[0]] = self.dequantize(
                        part, known.number, self.params_dtype
                    )
                    start += part.shape[0]
            delattr(layer, f"{stem}_qweight")
            delattr(layer, f"{stem}_qweight_type")
            layer.register_parameter(
                f"{stem}_weight", nn.Parameter(weight.to(self.staging.device), requires_grad=False)
            )

    def _runs(self, layer: FusedMoE, stem: str, expert: int) -> list[tuple[GgmlType, Tensor]]:
        keys = [(expert, shard) for shard in SHARDS[stem]]
        return list(self.blocks[stem].runs(layer.get_parameter(f"{stem}_qweight"), keys))

    def _product(self, layer: FusedMoE, stem: str, expert: int) -> Linear:
        def multiply(x: Tensor) -> Tensor:
            outputs = [self.multiply(x, part, known.number, None) for known, part in self._runs(layer, stem, expert)]
            return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)

        return multiply

    def apply(
        self, layer: FusedMoE, x: Tensor, bias: Tensor | None = None, *, topk_weights: Tensor, topk_ids: Tensor
    ) -> Tensor:
        """Run the chosen experts one after the other, each from its blocks."""
        del bias
        if not self.staging.keeps_blocks:
            output: Tensor = self.run_plain(x, layer.w13_weight, layer.w2_weight, topk_weights, topk_ids)
            return output
        return run_experts(
            x,
            lambda expert: (self._product(layer, "w13", expert), self._product(layer, "w2", expert)),
            topk_weights,
            topk_ids,
        )
