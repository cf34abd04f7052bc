"""FP8 with one scale per tensor or per output channel, and inputs quantized by a stored scale, per token, or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from backends.native.kernels.reference.fp8_linear import E4M3_MAX, to_e4m3
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

Strategy = Literal["tensor", "channel"]
Activations = Literal["static", "dynamic", "none"]
SMALLEST_ABSMAX = 1e-8
SYNTHETIC_INPUT_ABSMAX = 8.0
"""What a synthesized checkpoint takes for the largest input that calibration saw."""


def absmax_per(strategy: Strategy, weight: Tensor) -> Tensor:
    """float32 absmax of the whole weight, [1], or of each output channel, [N, 1]; never zero."""
    absmax = weight.float().abs().amax(1, keepdim=True)
    return (absmax if strategy == "channel" else absmax.amax().reshape(1)).clamp(min=SMALLEST_ABSMAX)


class Fp8ScaledLinearMethod(StoredLinearMethod):
    """FP8 with a scale per tensor or channel; a fused layer keeps one scale per projection."""


class Fp8ScaledMoEMethod(StoredMoEMethod):
    """FP8 experts with a scale per tensor or channel; gate and up keep their own."""


@dataclass(frozen=True)
class Float8(StoredWeight):
    """`weight` e4m3, `weight_scale`, and `input_scale` for static inputs; the scales multiply."""

    strategy: Strategy
    activations: Activations

    OP = "fp8_linear"
    LINEAR_METHOD = Fp8ScaledLinearMethod
    MOE_METHOD = Fp8ScaledMoEMethod

    def tensors(self, part: WeightPart) -> tuple[StoredTensor, ...]:
        """One scale per projection ([] or [1] on disk), or [N, 1]."""
        del part
        dims = (SHARD,) if self.strategy == "tensor" else (OUTPUT, 1)
        stored = (
            StoredTensor("weight", torch.float8_e4m3fn),
            StoredTensor("weight_scale", torch.float32, dims),
            StoredTensor("input_scale", torch.float32, (SHARD,)),
        )
        return stored if self.activations == "static" else stored[:2]

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """Absmax per tensor or channel; the input scale is made up."""
        scale = absmax_per(self.strategy, weight) / E4M3_MAX
        stored = {"weight": to_e4m3(weight.float() / scale), "weight_scale": scale}
        if self.activations == "static":
            stored["input_scale"] = torch.tensor([SYNTHETIC_INPUT_ABSMAX / E4M3_MAX])
        return stored

    def dequantize(self, tensors: Tensors) -> Tensor:
        """Weight times scale."""
        return tensors["weight"].float() * tensors["weight_scale"]

    def linear(self, multiply: Multiply, x: Tensor, tensors: Tensors, bias: Tensor | None) -> Tensor:
        """Quantizes `x` as the checkpoint says and multiplies in e4m3."""
        is_quantizing = self.activations != "none"
        return multiply(x, tensors["weight"], tensors["weight_scale"], tensors.get("input_scale"), is_quantizing, bias)
