"""Methods of layers that are not quantized, in a checkpoint of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from backends.native.kernels.choice import kernel
from backends.native.layers.linear import LinearBase
from backends.native.layers.moe import FusedMoE
from backends.native.layers.parameter import ModelParameter
from backends.native.layers.vocab import VocabParallelEmbedding
from backends.native.quantization.config import LinearMethod, MoEMethod, QuantizeMethod


class UnquantizedLinearMethod(LinearMethod[LinearBase | VocabParallelEmbedding]):
    """`weight` in the model's dtype, for linear layers and vocabularies."""

    def create_weights(
        self,
        layer: LinearBase | VocabParallelEmbedding,
        input_size_per_partition: int,
        output_partition_sizes: Sequence[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **extra: Any,
    ) -> None:
        """Register `weight` [sum(output_partition_sizes), input_size_per_partition]."""
        del input_size, output_size
        layer.weight = ModelParameter(
            torch.empty(sum(output_partition_sizes), input_size_per_partition, dtype=params_dtype),
            full_name=f"{layer.prefix}.weight",
            weight_loader=extra["weight_loader"],
            output_dim=0,
            input_dim=1,
        )

    def apply(self, layer: LinearBase | VocabParallelEmbedding, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """`x @ weight.T + bias`."""
        return functional.linear(x, layer.weight, bias)


class UnquantizedFusedMoEMethod(MoEMethod[FusedMoE]):
    """`w13_weight` (gate over up) and `w2_weight` in the model's dtype."""

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
        """Register w13 [experts, gate + up, hidden] and w2 [experts, hidden, intermediate]."""
        del input_size, output_size
        self.fused_moe = kernel("fused_moe", extra["kernels"], layer.prefix)
        experts, hidden, intermediate = extra["num_experts"], input_size_per_partition, output_partition_sizes[0]
        for name, shape in (("w13_weight", (2 * intermediate, hidden)), ("w2_weight", (hidden, intermediate))):
            param = ModelParameter(
                torch.empty(experts, *shape, dtype=params_dtype),
                full_name=f"{layer.prefix}.{name}",
                weight_loader=extra["weight_loader"],
                output_dim=1,
                input_dim=2,
            )
            layer.register_parameter(name, param)

    def apply(
        self, layer: FusedMoE, x: Tensor, bias: Tensor | None = None, *, topk_weights: Tensor, topk_ids: Tensor
    ) -> Tensor:
        """Run the chosen experts in the model's dtype."""
        del bias
        output: Tensor = self.fused_moe(x, layer.w13_weight, layer.w2_weight, topk_weights, topk_ids)
        return output


def plain_method(layer: nn.Module) -> QuantizeMethod[Any]:
    """The method that runs `layer` in the model's dtype."""
    return UnquantizedFusedMoEMethod() if isinstance(layer, FusedMoE) else UnquantizedLinearMethod()
