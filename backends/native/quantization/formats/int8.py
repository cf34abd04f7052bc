"""INT8 with one scale per tensor or per output channel, and inputs quantized by a stored scale, per token, or not."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from backends.native.kernels.reference.int8_linear import INT8_MAX, dequantize_int8
from backends.native.quantization.formats.float8 import SYNTHETIC_INPUT_ABSMAX, Activations, Strategy, absmax_per
from backends.native.quantization.stored import (
    OUTPUT,
    SHARD,
    Multiply,
    StoredLinearMethod,
    StoredMoEMethod,
    StoredTensor,
    StoredWeight,
    Tensors,
    WeightPart,
)

SYNTHETIC_ZERO_POINT = 3


class Int8LinearMethod(StoredLinearMethod):
    """INT8 weights and inputs with exact integer sums."""


class Int8MoEMethod(StoredMoEMethod):
    """INT8 experts with exact integer sums."""


@dataclass(frozen=True)
class Int8(StoredWeight):
    """`weight` int8 and `weight_scale`; for static inputs `input_scale` and, where they are not symmetric, its zero."""

    strategy: Strategy
    activations: Activations
    is_input_symmetric: bool = True

    OP = "int8_linear"
    LAYOUT_OP = "int8_weight_layout"
    MOE_OP = "int8_moe"
    LINEAR_METHOD = Int8LinearMethod
    MOE_METHOD = Int8MoEMethod

    def tensors(self, part: WeightPart) -> tuple[StoredTensor, ...]:
        """One weight scale per projection, or [N, 1]; one input scale per projection."""
        del part
        stored = [
            StoredTensor("weight", torch.int8),
            StoredTensor("weight_scale", torch.float32, (SHARD,) if self.strategy == "tensor" else (OUTPUT, 1)),
        ]
        if self.activations == "static":
            stored.append(StoredTensor("input_scale", torch.float32, (SHARD,)))
            if not self.is_input_symmetric:
                stored.append(StoredTensor("input_zero_point", torch.int8, (SHARD,)))
        return tuple(stored)

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """Absmax per tensor or channel; the input scale and zero point are made up."""
        scale = absmax_per(self.strategy, weight) / INT8_MAX
        stored = {"weight": (weight.float() / scale).round().to(torch.int8), "weight_scale": scale}
        if self.activations == "static":
            stored["input_scale"] = torch.tensor([SYNTHETIC_INPUT_ABSMAX / INT8_MAX])
            if not self.is_input_symmetric:
                stored["input_zero_point"] = torch.tensor([SYNTHETIC_ZERO_POINT], dtype=torch.int8)
        return stored

    def dequantize(self, tensors: Tensors) -> Tensor:
        """Weight times scale."""
        return dequantize_int8(tensors["weight"], tensors["weight_scale"], None)

    def linear(self, multiply: Multiply, x: Tensor, tensors: Tensors, bias: Tensor | None) -> Tensor:
        """Quantizes `x` as the checkpoint says and multiplies integers."""
        return multiply(
            x,
            tensors["weight"],
            tensors["weight_scale"],
            None,
            tensors.get("input_scale"),
            tensors.get("input_zero_point"),
            self.activations != "none",
            bias,
        )

    def is_read_whole(self, tensors: Tensors) -> bool:
        """A zero point of the inputs is corrected for by sums over the weight."""
        return "input_zero_point" not in tensors

    def moe_arguments(self, w13: Tensors, w2: Tensors) -> tuple[Tensor, ...] | None:
        """Scales per channel and inputs quantized per token, which one kernel runs for all experts."""
        if self.strategy != "channel" or self.activations != "dynamic":
            return None
        return w13["weight"], w13["weight_scale"], w2["weight"], w2["weight_scale"]
