"""The gated feed-forward block and its mixture-of-experts form with a shared expert."""

from __future__ import annotations

from torch import Tensor, nn

from backends.native.kernels.reference.silu_and_mul import silu_and_mul
from backends.native.layers.build import Build
from backends.native.layers.linear import MergedColumnParallelLinear, ReplicatedLinear, RowParallelLinear
from backends.native.layers.moe import FusedMoE
from backends.native.parallel.groups import all_reduce


class GatedMLP(nn.Module):
    """`down(silu(gate(x)) * up(x))`."""

    def __init__(
        self, hidden_size: int, intermediate_size: int, *, build: Build, prefix: str, reduce_results: bool = True
    ) -> None:
        super().__init__()
        self.gate_up_proj = MergedColumnParallelLinear(
            hidden_size, [intermediate_size, intermediate_size], build=build, prefix=f"{prefix}.gate_up_proj"
        )
        self.down_proj = RowParallelLinear(
            intermediate_size, hidden_size, build=build, prefix=f"{prefix}.down_proj", reduce_results=reduce_results
        )

    def forward(self, x: Tensor) -> Tensor:
        """[tokens, hidden] -> [tokens, hidden]."""
        output: Tensor = self.down_proj(silu_and_mul(self.gate_up_proj(x)))
        return output


class SparseMoeBlock(nn.Module):
    """Routed experts plus a shared expert whose output a sigmoid gate scales."""

    def __init__(
        self,
        hidden_size: int,
        *,
        num_experts: int,
        top_k: int,
        moe_intermediate_size: int,
        shared_intermediate_size: int,
        renormalize: bool,
        build: Build,
        prefix: str,
    ) -> None:
        super().__init__()
        self.gate = ReplicatedLinear(hidden_size, num_experts, build=build, prefix=f"{prefix}.gate")
        self.experts = FusedMoE(
            num_experts,
            top_k,
            hidden_size,
            moe_intermediate_size,
            renormalize=renormalize,
            build=build,
            prefix=f"{prefix}.experts",
        )
        self.shared_expert = GatedMLP(
            hidden_size, shared_intermediate_size, build=build, prefix=f"{prefix}.shared_expert", reduce_results=False
        )
        self.shared_expert_gate = ReplicatedLinear(hidden_size, 1, build=build, prefix=f"{prefix}.shared_expert_gate")

    def forward(self, x: Tensor) -> Tensor:
        """[tokens, hidden] -> [tokens, hidden]; one sum over the ranks for both kinds of expert."""
        shared = self.shared_expert(x) * self.shared_expert_gate(x).sigmoid()
        return all_reduce(self.experts(x, self.gate(x)) + shared)
