"""Fused experts: a stack of gate/up and down projections, each expert split among the ranks."""

from __future__ import annotations

from torch import Tensor, nn

from backends.native.errors import ShapeError
from backends.native.kernels.choice import kernel
from backends.native.layers.build import Build
from backends.native.layers.parameter import (
    ModelParameter,
    ShardedParameter,
    contiguous_slice,
    copy_checked,
    fill_shards,
)
from backends.native.parallel.groups import divide, tp_rank, tp_size
from backends.native.quantization.config import MoEMethod


class FusedMoE(nn.Module):
    """`w13_weight` [experts, gate rows then up rows, hidden] and `w2_weight` [experts, hidden, intermediate].

    Shard ids are "w1" (gate), "w3" (up) and "w2" (down); each rank holds its part of the intermediate size.
    """

    quant_method: MoEMethod[FusedMoE]
    w13_weight: ModelParameter
    w2_weight: ModelParameter

    def __init__(
        self,
        num_experts: int,
        top_k: int,
        hidden_size: int,
        intermediate_size: int,
        *,
        renormalize: bool,
        build: Build,
        prefix: str,
    ) -> None:
        super().__init__()
        self.prefix = prefix
        self.topk_softmax = kernel("topk_softmax", build.kernels, prefix)
        self.num_experts, self.top_k, self.renormalize = num_experts, top_k, renormalize
        self.tp_rank, self.tp_size = tp_rank(), tp_size()
        intermediate = divide(intermediate_size, self.tp_size, f"{prefix} moe_intermediate_size")
        self.quant_method = build.quant_config.get_quant_method(self, prefix)
        self.quant_method.create_weights(
            self,
            hidden_size,
            [intermediate, intermediate],
            hidden_size,
            2 * intermediate_size,
            build.params_dtype,
            num_experts=num_experts,
            weight_loader=self.weight_loader,
            kernels=build.kernels,
            keeps_quantized_blocks=build.keeps_quantized_blocks,
        )

    def weight_loader(self, param: ShardedParameter, loaded_weight: Tensor, shard_id: str, expert_id: int) -> None:
        """Copy this rank's part of one projection of one expert, or of its scales; raises ShapeError."""
        if not 0 <= expert_id < self.num_experts:
            raise ShapeError(
                f"{param.full_name} has {self.num_experts} experts, the tensor is of expert {expert_id}.",
                "compare num_experts in config.json with the names on disk",
            )
        name = f"{param.full_name} expert {expert_id} {shard_id}"
        destination, position = param.data.select(0, expert_id), int(shard_id == "w3")
        split_dim = param.input_dim if shard_id == "w2" else param.output_dim
        if param.shard_dim is not None and split_dim is not None:
            loaded_weight = loaded_weight.unsqueeze(param.shard_dim - 1)
        if shard_id != "w2" and split_dim is not None:
            rows = destination.shape[split_dim - 1] // 2
            destination = destination.narrow(split_dim - 1, position * rows, rows)
        if split_dim is not None:
            loaded_weight = contiguous_slice(
                destination, loaded_weight, split_dim - 1, self.tp_rank, self.tp_size, name
            )
        if param.shard_dim is not None and split_dim is None:
            fill_shards(destination, loaded_weight, [position], name)
        else:
            copy_checked(destination, loaded_weight, name)

    def forward(self, x: Tensor, router_logits: Tensor) -> Tensor:
        """[tokens, hidden] and [tokens, experts] -> this rank's summand of [tokens, hidden]."""
        topk_weights, topk_ids = self.topk_softmax(router_logits, self.top_k, self.renormalize)
        return self.quant_method.apply(self, x, topk_weights=topk_weights.to(x.dtype), topk_ids=topk_ids)
