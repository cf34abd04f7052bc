"""FP8 with block scales: e4m3 weights and one float32 scale per block of (output, input) elements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from backends.native.errors import ShapeError
from backends.native.kernels.choice import kernel
from backends.native.kernels.reference.fp8_block_linear import dequantize_blocks
from backends.native.kernels.reference.fp8_linear import E4M3_MAX
from backends.native.layers.moe import FusedMoE
from backends.native.quantization.formats.float8 import SMALLEST_ABSMAX
from backends.native.quantization.stored import (
    Multiply,
    StoredLinearMethod,
    StoredMoEMethod,
    StoredTensor,
    StoredWeight,
    Tensors,
    WeightPart,
)

BLOCK_REMEDY = "check whether the ignore list should have skipped this layer, then try a smaller tp_size"


def quantize_blocks(weight: Tensor, block: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """[N, K] -> float8_e4m3fn [N, K] and float32 scales [ceil(N / block_n), ceil(K / block_k)]; absmax per block."""
    (rows, columns), (block_n, block_k) = weight.shape, block
    padded = functional.pad(weight.float(), (0, -columns % block_k, 0, -rows % block_n))
    blocks = padded.view(padded.shape[0] // block_n, block_n, padded.shape[1] // block_k, block_k)
    scale = blocks.abs().amax((1, 3)).clamp(min=SMALLEST_ABSMAX) / E4M3_MAX
    scaled = (blocks / scale[:, None, :, None]).clamp(-E4M3_MAX, E4M3_MAX)
    return scaled.flatten(2).flatten(0, 1)[:rows, :columns].to(torch.float8_e4m3fn).contiguous(), scale


def require_whole_blocks(part: WeightPart, block: tuple[int, int]) -> None:
    """Raise ShapeError where a rank or a projection of a fused layer would own a part of a block."""
    block_n, block_k = block
    if part.is_input_split and part.input_size_per_partition % block_k:
        raise ShapeError(
            f"Weight input_size_per_partition = {part.input_size_per_partition} is not divisible by weight "
            f"quantization block_k = {block_k}. The layer is {part.prefix}.",
            BLOCK_REMEDY,
        )
    for size in part.output_partition_sizes:
        if part.is_output_split and size % block_n:
            raise ShapeError(
                f"Weight output_partition_size = {size} is not divisible by weight quantization block_n = {block_n}. "
                f"The layer is {part.prefix}.",
                BLOCK_REMEDY,
            )


class Fp8LinearMethod(StoredLinearMethod):
    """Weight-only, or with inputs quantized per token and group, as the format says."""


class Fp8MoEMethod(StoredMoEMethod):
    """Experts with block scales, run by one operator."""

    def __init__(self, stored: Float8Blocks) -> None:
        super().__init__(stored)
        self.blocks = stored

    def create_weights(self, layer: FusedMoE, *sizes: Any, **extra: Any) -> None:
        """Register the parameters, and choose the kernel of all experts."""
        super().create_weights(layer, *sizes, **extra)
        self.run = kernel(self.blocks.MOE_OP, extra["kernels"], layer.prefix)

    def apply(
        self, layer: FusedMoE, x: Tensor, bias: Tensor | None = None, *, topk_weights: Tensor, topk_ids: Tensor
    ) -> Tensor:
        """Weighted sum of the chosen experts' outputs."""
        del bias
        blocks = self.blocks
        w13_scale, w2_scale = (layer.get_parameter(f"{stem}{blocks.scale_suffix}") for stem in ("w13_", "w2_"))
        output: Tensor = self.run(
            x, layer.w13_weight, w13_scale, layer.w2_weight, w2_scale, list(blocks.block), topk_weights, topk_ids
        )
        return output


@dataclass(frozen=True)
class Float8Blocks(StoredWeight):
    """`weight` e4m3 and its scales, sharded by the weight's loader in units of blocks of (block_n, block_k).

    Weight-only: inputs stay as they are, whether or not the checkpoint says that they are quantized.
    """

    block: tuple[int, int]
    scale_suffix: str = "weight_scale_inv"
    declares_inputs: bool = True

    OP: ClassVar[str] = "fp8_block_linear"
    MOE_OP: ClassVar[str] = "fp8_block_moe"
    LINEAR_METHOD = Fp8LinearMethod
    MOE_METHOD = Fp8MoEMethod

    def tensors(self, part: WeightPart) -> tuple[StoredTensor, ...]:
        """Weight and block scales; the scales multiply, whatever their suffix says."""
        del part
        return (
            StoredTensor("weight", torch.float8_e4m3fn),
            StoredTensor(self.scale_suffix, torch.float32, block=self.block),
        )

    def with_quantized_inputs(self) -> Float8Blocks:
        """With inputs quantized per token and group, if the checkpoint says that they are."""
        if not self.declares_inputs:
            return self
        return DynamicFloat8Blocks(self.block, self.scale_suffix)

    def require_shape(self, part: WeightPart) -> None:
        """Raise ShapeError for a block that is cut."""
        require_whole_blocks(part, self.block)

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """Absmax per block."""
        quantized, scale = quantize_blocks(weight, self.block)
        return {"weight": quantized, self.scale_suffix: scale}

    def dequantize(self, tensors: Tensors) -> Tensor:
        """Weight times the scale of its block."""
        return dequantize_blocks(tensors["weight"], tensors[self.scale_suffix], self.block)

    def linear(self, multiply: Multiply, x: Tensor, tensors: Tensors, bias: Tensor | None) -> Tensor:
        """Weight and block scales, as both of the format's operations take them."""
        return multiply(x, tensors["weight"], tensors[self.scale_suffix], list(self.block), bias)


@dataclass(frozen=True)
class DynamicFloat8Blocks(Float8Blocks):
    """The same weights, with inputs quantized per token in groups of block_k, as engines run them on GPUs."""

    OP: ClassVar[str] = "fp8_block_dynamic_linear"
    MOE_OP: ClassVar[str] = "fp8_block_dynamic_moe"
