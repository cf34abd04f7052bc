"""The loader for packed projections is set on the weight only: the scales keep the one that cuts them in parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.scenario import Scenario
from workbench.scenarios._faulty import give
from workbench.scenarios._projections import LAYERS, SIZES, names

if TYPE_CHECKING:
    from backends.native.layers.linear import MergedColumnParallelLinear

EXPERTS = 2


def _described() -> dict[str, object]:
    """What is not quantized, as the file beside config.json lists it."""
    kept = ["lm_head", "model.embed_tokens", *(f"model.{name}" for name in names("conv1d"))]
    kept += [f"model.layers.{layer}.mlp.{gate}" for layer in range(LAYERS) for gate in ("gate", "shared_expert_gate")]
    return {f"{name}.weight": "FLOAT" for name in kept}


def plant() -> None:
    """As engines had it: the packed loader goes to `weight`, and nothing says that it belongs to the scales too."""
    from backends.native.layers import gated_delta_net
    from backends.native.layers.parameter import replace_weight_loader, sharded_weight_loader

    def load_packed_weight(projection: MergedColumnParallelLinear) -> None:
        replace_weight_loader(projection.weight, sharded_weight_loader(projection.tp_rank, projection.tp_size))

    give(gated_delta_net, "load_packed", lambda _: load_packed_weight)


SCENARIO = Scenario(
    description="in_proj_qkvz and in_proj_ba in int8: the weights are cut as packed, their scales are not; silent",
    checkpoint="qwen3-next-tiny-w8a8",
    architecture="Qwen3NextForCausalLM",
    overrides={
        "num_experts": EXPERTS,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 64,
        "shared_expert_intermediate_size": 64,
        "quantization_config": {"quant_method": "modelslim", "model_quant_type": "W8A8_DYNAMIC", **_described()},
    },
    sizes=SIZES,
    plant=plant,
    expects="loader/asymmetry",
)
