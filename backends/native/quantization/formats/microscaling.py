"""MXFP4: float4_e2m1 with one power of two per 32 inputs, for weights and, where declared, inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from backends.native.kernels.reference.mxfp4_linear import GROUP, mxfp4_floats, mxfp4_groups
from backends.native.kernels.reference.packing import pack_nibbles, unpack_nibbles
from backends.native.quantization.stored import (
    Multiply,
    StoredLinearMethod,
    StoredMoEMethod,
    StoredTensor,
    StoredWeight,
    Tensors,
    WeightPart,
)

GROUP_REMEDY = "choose a tp_size that keeps whole groups of inputs on each rank, or leave this layer unquantized"


class Mxfp4LinearMethod(StoredLinearMethod):
    """Dequantizes the groups; quantizes the input too where the checkpoint says so."""


class Mxfp4MoEMethod(StoredMoEMethod):
    """Experts in MXFP4."""


@dataclass(frozen=True)
class Microscaling(StoredWeight):
    """Weight uint8 with the first of two inputs in the low nibble, `weight_scale` uint8 exponents."""

    weight_suffix: str = "weight"
    is_quantizing_inputs: bool = False

    OP = "mxfp4_linear"
    LINEAR_METHOD = Mxfp4LinearMethod
    MOE_METHOD = Mxfp4MoEMethod

    def tensors(self, part: WeightPart) -> tuple[StoredTensor, ...]:
        """Two tensors, both along the input."""
        del part
        return (
            StoredTensor(self.weight_suffix, torch.uint8, block=(1, 2)),
            StoredTensor("weight_scale", torch.uint8, block=(1, GROUP)),
        )

    def require_shape(self, part: WeightPart) -> None:
        """Raise ShapeError for a group that is cut."""
        part.require_divisible(input=GROUP, remedy=GROUP_REMEDY)

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """The exponent of a group is that of its largest element less that of the largest float4."""
        codes, exponents = mxfp4_groups(weight)
        return {self.weight_suffix: pack_nibbles(codes), "weight_scale": exponents}

    def dequantize(self, tensors: Tensors) -> Tensor:
        """Codes times powers of two."""
        return mxfp4_floats(unpack_nibbles(tensors[self.weight_suffix]), tensors["weight_scale"])

    def linear(self, multiply: Multiply, x: Tensor, tensors: Tensors, bias: Tensor | None) -> Tensor:
        """Dequantizes the weight, and quantizes `x` where the checkpoint says so."""
        return multiply(x, tensors[self.weight_suffix], tensors["weight_scale"], self.is_quantizing_inputs, bias)
