"""The model does not say what its fused projections are made of: modules the list excludes are built as FP4."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from workbench.scenario import Scenario
from workbench.scenarios._faulty import give
from workbench.scenarios._projections import SIZES, names

if TYPE_CHECKING:
    from torch import Tensor

    from backends.native.weights import NameMapping, Target

ARCHITECTURE = "Qwen3_5ForConditionalGeneration"
PREFIX = "model.language_model"
PARTS = ("conv1d", "in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a")
FUSED_HERE = ("qkv_proj", "gate_up_proj")
"""All that the mapping of the faulty engine holds."""


def plant() -> None:
    """As engines had it: half a `packed_modules_mapping`, and weights that come plain are made FP4 while they load."""
    from backends.native.registry import architecture_module
    from backends.native.weights import NameMapping

    model = getattr(architecture_module(ARCHITECTURE), ARCHITECTURE)
    give(model, "packed_modules_mapping", lambda mapping: {name: mapping[name] for name in FUSED_HERE})
    give(NameMapping, "placements", _quantizing)


def _quantizing(repaired: Callable[..., Iterator[tuple[Target, Tensor]]]) -> Callable[..., object]:
    import torch

    def placements(
        self: NameMapping, name: str, loaded_weight: Tensor, parameters: Mapping[str, Tensor]
    ) -> Iterator[tuple[Target, Tensor]]:
        for target, part in repaired(self, name, loaded_weight, parameters):
            if parameters[target.parameter].dtype == torch.uint8 and part.is_floating_point():
                yield from _as_fp4(target, part)
            else:
                yield target, part

    return placements


def _as_fp4(target: Target, part: Tensor) -> Iterator[tuple[Target, Tensor]]:
    from backends.native.quantization.formats.nvfp4 import MULTIPLIED, Nvfp4

    module = target.parameter.rpartition(".")[0]
    for suffix, tensor in Nvfp4(MULTIPLIED).quantize(part).items():
        yield replace(target, parameter=f"{module}.{suffix}"), tensor


SCENARIO = Scenario(
    description="the exclude list names in_proj_qkv and in_proj_z, the fused in_proj_qkvz is built as FP4; silent",
    checkpoint="qwen3.5-tiny-nvfp4",
    architecture=ARCHITECTURE,
    overrides={
        "quantization_config": {
            "quant_method": "modelopt",
            "quant_algo": "NVFP4",
            "group_size": 16,
            "ignore": ["lm_head", *(f"{PREFIX}.{name}" for part in PARTS for name in names(part))],
        },
    },
    sizes=SIZES,
    tp=2,
    plant=plant,
    expects="precision/contradiction",
)
