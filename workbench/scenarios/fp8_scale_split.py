"""A scale of one element comes for three projections at once and is split like a weight: the load fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from workbench.scenario import Scenario
from workbench.scenarios._faulty import give
from workbench.scenarios._projections import SIZES, names

if TYPE_CHECKING:
    from torch import Tensor

    from backends.native.layers.linear import FusedColumnLinear
    from backends.native.layers.parameter import ShardedParameter

PREFIX = "model.language_model"
IGNORED = ["lm_head", *(f"{PREFIX}.{name}" for part in ("conv1d", "in_proj_b", "in_proj_a") for name in names(part))]


def plant() -> None:
    """As engines had it: a tuple of shard ids means a split, whatever the tensor is."""
    from backends.native.layers.linear import FusedColumnLinear

    give(FusedColumnLinear, "weight_loader", _splitting)


def _splitting(repaired: Callable[..., None]) -> Callable[..., None]:
    import torch

    def weight_loader(
        self: FusedColumnLinear,
        param: ShardedParameter,
        loaded_weight: Tensor,
        shard_id: int | str | tuple[int, ...] | None = None,
    ) -> None:
        if isinstance(shard_id, tuple) and param.shard_dim is not None:
            parts = torch.split(loaded_weight, [1] * len(shard_id))
            for one, part in zip(shard_id, parts, strict=True):
                repaired(self, param, part, one)
        else:
            repaired(self, param, loaded_weight, shard_id)

    return weight_loader


SCENARIO = Scenario(
    description="in_proj_qkv.weight_scale has one element for q, k and v; it is split in three, and the load fails",
    checkpoint="qwen3.5-tiny-fp8",
    architecture="Qwen3_5ForConditionalGeneration",
    overrides={
        "quantization_config": {
            "quant_method": "fp8",
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "modules_to_not_convert": IGNORED,
        },
    },
    sizes=SIZES,
    plant=plant,
    expects="scale/split",
)
