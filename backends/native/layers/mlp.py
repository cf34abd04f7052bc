"""The gated feed-forward block and its mixture-of-experts form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backends.native.checkpoint.spec import TensorSpec
from backends.native.kernels.choice import kernel
from backends.native.layers.build import Build
from backends.native.layers.linear import MergedColumnParallelLinear, ReplicatedLinear, RowParallelLinear
from backends.native.layers.moe import FusedMoE
from backends.native.parallel.groups import all_reduce


@dataclass(frozen=True)
class MLPShape:
    """Sizes of the whole block, before it is split among ranks."""

    hidden_size: int
    intermediate_size: int
    has_bias: bool = False


@dataclass(frozen=True)
class MoEShape:
    """Sizes of the whole block; `shared_intermediate_size` 0 means that there is no shared expert."""

    hidden_size: int
    num_experts: int
    top_k: int
    intermediate_size: int
    renormalize: bool
    shared_intermediate_size: int = 0

    @property
    def modules_to_not_convert(self) -> tuple[str, ...]:
        """What published quantized checkpoints keep in the model's dtype."""
        return ("gate", "shared_expert_gate") if self.shared_intermediate_size else ("gate",)


class GatedMLP(nn.Module):
    """`down(silu(gate(x)) * up(x))`."""

    def __init__(self, shape: MLPShape, *, build: Build, prefix: str, reduce_results: bool = True) -> None:
        super().__init__()
        self.gate_up_proj = MergedColumnParallelLinear(
            shape.hidden_size,
            [shape.intermediate_size, shape.intermediate_size],
            build=build,
            prefix=f"{prefix}.gate_up_proj",
            bias=shape.has_bias,
        )
        self.down_proj = RowParallelLinear(
            shape.intermediate_size,
            shape.hidden_size,
            build=build,
            prefix=f"{prefix}.down_proj",
            bias=shape.has_bias,
            reduce_results=reduce_results,
        )
        self.silu_and_mul = kernel("silu_and_mul", build.kernels, prefix)

    def forward(self, x: Tensor) -> Tensor:
        """[tokens, hidden] -> [tokens, hidden]."""
        output: Tensor = self.down_proj(self.silu_and_mul(self.gate_up_proj(x)))
        return output


class SparseMoeBlock(nn.Module):
    """Routed experts, and where a model has one, a shared expert whose output a sigmoid gate scales."""

    def __init__(self, shape: MoEShape, *, build: Build, prefix: str) -> None:
        super().__init__()
        self.gate = ReplicatedLinear(shape.hidden_size, shape.num_experts, build=build, prefix=f"{prefix}.gate")
        self.experts = FusedMoE(
            shape.num_experts,
            shape.top_k,
            shape.hidden_size,
            shape.intermediate_size,
            renormalize=shape.renormalize,
            build=build,
            prefix=f"{prefix}.experts",
        )
        self.shared_expert: GatedMLP | None = None
        self.shared_expert_gate: ReplicatedLinear | None = None
        if shape.shared_intermediate_size:
            shared = MLPShape(shape.hidden_size, shape.shared_intermediate_size)
            name = f"{prefix}.shared_expert"
            self.shared_expert = GatedMLP(shared, build=build, prefix=name, reduce_results=False)
            self.shared_expert_gate = ReplicatedLinear(shape.hidden_size, 1, build=build, prefix=f"{name}_gate")

    def forward(self, x: Tensor) -> Tensor:
        """[tokens, hidden] -> [tokens, hidden]; one sum over the ranks for both kinds of expert."""
        output = self.experts(x, self.gate(x))
        if self.shared_expert is not None and self.shared_expert_gate is not None:
            output = output + self.shared_expert(x) * self.shared_expert_gate(x).sigmoid()
        return all_reduce(output)


def mlp_tensors(shape: MLPShape, prefix: str, dtype: torch.dtype) -> Iterator[TensorSpec]:
    """What the block called `prefix` is on disk."""
    for proj, size in {
        "gate_proj": (shape.intermediate_size, shape.hidden_size),
        "up_proj": (shape.intermediate_size, shape.hidden_size),
        "down_proj": (shape.hidden_size, shape.intermediate_size),
    }.items():
        yield TensorSpec(f"{prefix}.{proj}.weight", size, dtype, quantizable=True)
        if shape.has_bias:
            yield TensorSpec(f"{prefix}.{proj}.bias", size[:1], dtype)


def moe_tensors(shape: MoEShape, prefix: str, dtype: torch.dtype, *, are_experts_fused: bool) -> Iterator[TensorSpec]:
    """What the block called `prefix` is on disk; fused experts are two tensors [experts, ...]."""
    hidden, intermediate = shape.hidden_size, shape.intermediate_size
    yield TensorSpec(f"{prefix}.gate.weight", (shape.num_experts, hidden), dtype, quantizable=True)
    if are_experts_fused:
        yield TensorSpec(f"{prefix}.experts.gate_up_proj", (shape.num_experts, 2 * intermediate, hidden), dtype)
        yield TensorSpec(f"{prefix}.experts.down_proj", (shape.num_experts, hidden, intermediate), dtype)
    else:
        for expert in range(shape.num_experts):
            yield from mlp_tensors(MLPShape(hidden, intermediate), f"{prefix}.experts.{expert}", dtype)
    if shape.shared_intermediate_size:
        shared = MLPShape(hidden, shape.shared_intermediate_size)
        yield from mlp_tensors(shared, f"{prefix}.shared_expert", dtype)
        yield TensorSpec(f"{prefix}.shared_expert_gate.weight", (1, hidden), dtype, quantizable=True)
