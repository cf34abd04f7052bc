"""NVFP4: float4_e2m1 with one e4m3 scale per 16 inputs and one float32 scale per tensor, for weights and inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from backends.native.kernels.reference.fp8_linear import E4M3_MAX
from backends.native.kernels.reference.nvfp4_linear import GROUP, nvfp4_floats, nvfp4_groups
from backends.native.kernels.reference.packing import E2M1_MAX, pack_nibbles, unpack_nibbles
from backends.native.quantization.formats.float8 import SMALLEST_ABSMAX, SYNTHETIC_INPUT_ABSMAX
from backends.native.quantization.stored import (
    SHARD,
    Multiply,
    StoredLinearMethod,
    StoredMoEMethod,
    StoredTensor,
    StoredWeight,
    Tensors,
    WeightPart,
)

GROUP_REMEDY = "check whether the ignore list should have skipped this layer, then try a smaller tp_size"


@dataclass(frozen=True)
class Spelling:
    """The suffixes of a weight, and whether the float32 scales are stored as their reciprocals."""

    weight: str
    weight_global: str
    input_global: str
    is_reciprocal: bool


MULTIPLIED = Spelling("weight", "weight_scale_2", "input_scale", is_reciprocal=False)
DIVIDED = Spelling("weight_packed", "weight_global_scale", "input_global_scale", is_reciprocal=True)


class Nvfp4LinearMethod(StoredLinearMethod):
    """Emulates the tensor cores: quantizes the input in groups, multiplies in float32."""


class Nvfp4MoEMethod(StoredMoEMethod):
    """Experts in NVFP4; gate and up keep their own float32 scales."""


@dataclass(frozen=True)
class Nvfp4(StoredWeight):
    """Weight uint8 with the first of two inputs in the low nibble, `weight_scale`, and the two float32 scales."""

    spelling: Spelling
    is_quantizing_inputs: bool = True

    OP = "nvfp4_linear"
    LINEAR_METHOD = Nvfp4LinearMethod
    MOE_METHOD = Nvfp4MoEMethod

    def tensors(self, part: WeightPart) -> tuple[StoredTensor, ...]:
        """Float32 scales are one per projection."""
        del part
        stored = (
            StoredTensor(self.spelling.weight, torch.uint8, block=(1, 2)),
            StoredTensor("weight_scale", torch.float8_e4m3fn, block=(1, GROUP)),
            StoredTensor(self.spelling.weight_global, torch.float32, (SHARD,)),
            StoredTensor(self.spelling.input_global, torch.float32, (SHARD,)),
        )
        return stored if self.is_quantizing_inputs else stored[:3]

    def require_shape(self, part: WeightPart) -> None:
        """Raise ShapeError for a group that is cut."""
        part.require_divisible(input=GROUP, remedy=GROUP_REMEDY)

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """The largest element becomes 6 x 448 times the float32 scale; that of the inputs is made up."""
        unit = weight.float().abs().amax().clamp(min=SMALLEST_ABSMAX) / (E2M1_MAX * E4M3_MAX)
        codes, scale = nvfp4_groups(weight, unit)
        input_unit = torch.tensor(SYNTHETIC_INPUT_ABSMAX / (E2M1_MAX * E4M3_MAX))
        stored = {
            self.spelling.weight: pack_nibbles(codes),
            "weight_scale": scale,
            self.spelling.weight_global: self._stored_scale(unit),
            self.spelling.input_global: self._stored_scale(input_unit),
        }
        return {spec.suffix: stored[spec.suffix] for spec in self.tensors(WeightPart.whole(weight))}

    def dequantize(self, tensors: Tensors) -> Tensor:
        """Codes times both scales."""
        unit = self._scale(tensors[self.spelling.weight_global])
        return nvfp4_floats(unpack_nibbles(tensors[self.spelling.weight]), tensors["weight_scale"], unit)

    def linear(self, multiply: Multiply, x: Tensor, tensors: Tensors, bias: Tensor | None) -> Tensor:
        """Quantizes `x` in groups if the checkpoint does, and multiplies in float32."""
        input_unit = tensors.get(self.spelling.input_global)
        return multiply(
            x,
            tensors[self.spelling.weight],
            tensors["weight_scale"],
            self._scale(tensors[self.spelling.weight_global]),
            None if input_unit is None else self._scale(input_unit),
            bias,
        )

    def _scale(self, stored: Tensor) -> Tensor:
        return stored.reciprocal() if self.spelling.is_reciprocal else stored

    def _stored_scale(self, scale: Tensor) -> Tensor:
        return scale.reciprocal().reshape(1) if self.spelling.is_reciprocal else scale
