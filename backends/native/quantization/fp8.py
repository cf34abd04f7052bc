"""FP8 with block scales: e4m3 weights, one float32 `weight_scale_inv` per block of (output, input) elements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from backends.native.config import checked_value
from backends.native.errors import ConfigError, ShapeError
from backends.native.kernels.reference.fp8_block_linear import fp8_block_linear, fp8_block_moe
from backends.native.layers.linear import LinearBase
from backends.native.layers.moe import FusedMoE
from backends.native.layers.parameter import ModelParameter
from backends.native.quantization.config import FusedNames, LinearMethod, MoEMethod, QuantizationConfig
from backends.native.quantization.plain import plain_method
from backends.native.quantization.skip import is_layer_skipped

QUANT_METHODS = ("fp8",)
IGNORE_KEYS = ("modules_to_not_convert", "ignored_layers")
E4M3_MAX = torch.finfo(torch.float8_e4m3fn).max
SMALLEST_ABSMAX = 1e-8
BLOCK_REMEDY = "check whether the ignore list should have skipped this layer, then try a smaller tp_size"


@dataclass(frozen=True)
class Fp8Config(QuantizationConfig):
    """`weight_block_size` is (block_n, block_k): output rows and input columns of a block."""

    CLAIMS = "weight_block_size: [block_n, block_k]"

    weight_block_size: tuple[int, int] = (128, 128)

    @classmethod
    def claims(cls, quantization: Mapping[str, object]) -> bool:
        """Whether the checkpoint is quantized in blocks."""
        return quantization.get("weight_block_size") is not None

    @classmethod
    def from_fields(
        cls, quantization: Mapping[str, object], packed_modules_mapping: FusedNames, fused_fallback: FusedNames
    ) -> Fp8Config:
        """Read the block size and the ignore list, under either of its names."""
        block = checked_value(quantization["weight_block_size"], tuple[int, ...], "weight_block_size")
        if len(block) != len(("block_n", "block_k")) or min(block) < 1:
            raise ConfigError(
                f"config.json: weight_block_size is {list(block)}, expected two positive sizes.",
                "compare with the config.json the model was published with",
            )
        key = next((key for key in IGNORE_KEYS if quantization.get(key) is not None), None)
        ignored = checked_value(quantization[key], tuple[str, ...], key) if key else ()
        return cls(
            quant_method=checked_value(quantization["quant_method"], str, "quant_method"),
            ignored_layers=ignored,
            ignored_layers_key=key,
            packed_modules_mapping=packed_modules_mapping,
            fused_fallback=fused_fallback,
            weight_block_size=block,
        )

    def get_quant_method(self, layer: nn.Module, prefix: str) -> Any:
        """FP8 for linear layers and experts that the ignore list leaves in; embedding and head are never quantized."""
        if not isinstance(layer, LinearBase | FusedMoE):
            return plain_method(layer)
        if is_layer_skipped(prefix, self.ignored_layers, self.packed_modules_mapping, self.fused_fallback):
            return plain_method(layer)
        return Fp8MoEMethod(self) if isinstance(layer, FusedMoE) else Fp8LinearMethod(self)

    def quantize(self, name: str, weight: Tensor) -> dict[str, Tensor]:
        """`weight` in e4m3 and its block scales, called `weight_scale_inv` though they multiply."""
        quantized, scale = quantize_blocks(weight, self.weight_block_size)
        return {name: quantized, f"{name}_scale_inv": scale}


def quantize_blocks(weight: Tensor, block: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """[N, K] -> float8_e4m3fn [N, K] and float32 scales [ceil(N / block_n), ceil(K / block_k)]; absmax per block."""
    (rows, columns), (block_n, block_k) = weight.shape, block
    padded = functional.pad(weight.float(), (0, -columns % block_k, 0, -rows % block_n))
    blocks = padded.view(padded.shape[0] // block_n, block_n, padded.shape[1] // block_k, block_k)
    scale = blocks.abs().amax((1, 3)).clamp(min=SMALLEST_ABSMAX) / E4M3_MAX
    scaled = (blocks / scale[:, None, :, None]).clamp(-E4M3_MAX, E4M3_MAX)
    return scaled.flatten(2).flatten(0, 1)[:rows, :columns].to(torch.float8_e4m3fn).contiguous(), scale


def require_whole_blocks(
    prefix: str,
    block: tuple[int, int],
    *,
    input_size: int,
    input_size_per_partition: int,
    output_size: int,
    output_partition_sizes: Sequence[int],
) -> None:
    """Raise ShapeError where a rank or a projection of a fused layer would own a part of a block."""
    block_n, block_k = block
    if input_size_per_partition < input_size and input_size_per_partition % block_k:
        raise ShapeError(
            f"Weight input_size_per_partition = {input_size_per_partition} is not divisible by weight quantization "
            f"block_k = {block_k}. The layer is {prefix}.",
            BLOCK_REMEDY,
        )
    is_split = len(output_partition_sizes) > 1 or sum(output_partition_sizes) < output_size
    for size in output_partition_sizes:
        if is_split and size % block_n:
            raise ShapeError(
                f"Weight output_partition_size = {size} is not divisible by weight quantization block_n = {block_n}. "
                f"The layer is {prefix}.",
                BLOCK_REMEDY,
            )


class Fp8LinearMethod(LinearMethod[LinearBase]):
    """`weight` e4m3 and `weight_scale_inv`; the scales are sharded by the weight's loader, in units of blocks."""

    def __init__(self, config: Fp8Config) -> None:
        self.block = config.weight_block_size

    def create_weights(
        self,
        layer: LinearBase,
        input_size_per_partition: int,
        output_partition_sizes: Sequence[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **extra: Any,
    ) -> None:
        """Register `weight` [output, input] and `weight_scale_inv`; raises ShapeError for a block that is cut."""
        del params_dtype
        require_whole_blocks(
            layer.prefix,
            self.block,
            input_size=input_size,
            input_size_per_partition=input_size_per_partition,
            output_size=output_size,
            output_partition_sizes=output_partition_sizes,
        )
        rows, columns = sum(output_partition_sizes), input_size_per_partition
        for name, param in block_parameters(
            layer.prefix, "weight", (rows, columns), self.block, extra["weight_loader"]
        ):
            layer.register_parameter(name, param)

    def apply(self, layer: LinearBase, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Weight-only reference: dequantizes the weight, leaves `x` as it is."""
        scale = layer.get_parameter("weight_scale_inv")
        return fp8_block_linear(x, layer.weight, scale, list(self.block), bias)


class Fp8MoEMethod(MoEMethod[FusedMoE]):
    """`w13_weight`, `w2_weight` in e4m3, each with a `_scale_inv` per expert and block."""

    def __init__(self, config: Fp8Config) -> None:
        self.block = config.weight_block_size

    def create_weights(
        self,
        layer: FusedMoE,
        input_size_per_partition: int,
        output_partition_sizes: Sequence[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **extra: Any,
    ) -> None:
        """Register w13 [experts, gate + up, hidden], w2 [experts, hidden, intermediate] and their block scales."""
        del params_dtype
        experts, hidden, intermediate = extra["num_experts"], input_size_per_partition, output_partition_sizes[0]
        require_whole_blocks(
            layer.prefix,
            self.block,
            input_size=input_size,
            input_size_per_partition=hidden,
            output_size=output_size,
            output_partition_sizes=output_partition_sizes,
        )
        require_whole_blocks(
            f"{layer.prefix} (down_proj)",
            self.block,
            input_size=output_size // 2,
            input_size_per_partition=intermediate,
            output_size=hidden,
            output_partition_sizes=[hidden],
        )
        for stem, rows, columns in (("w13_weight", 2 * intermediate, hidden), ("w2_weight", hidden, intermediate)):
            shape = (experts, rows, columns)
            for name, param in block_parameters(layer.prefix, stem, shape, self.block, extra["weight_loader"]):
                layer.register_parameter(name, param)

    def apply(
        self, layer: FusedMoE, x: Tensor, bias: Tensor | None = None, *, topk_weights: Tensor, topk_ids: Tensor
    ) -> Tensor:
        """Weight-only reference: dequantizes the chosen experts, leaves `x` as it is."""
        del bias
        w13_scale, w2_scale = (layer.get_parameter(f"{name}_scale_inv") for name in ("w13_weight", "w2_weight"))
        return fp8_block_moe(
            x, layer.w13_weight, w13_scale, layer.w2_weight, w2_scale, list(self.block), topk_weights, topk_ids
        )


def block_parameters(
    prefix: str, name: str, shape: tuple[int, ...], block: tuple[int, int], weight_loader: Any
) -> list[tuple[str, ModelParameter]]:
    """The e4m3 weight of `shape` [..., output, input] and its scales, under their names, uninitialised."""
    *experts, rows, columns = shape
    scale_shape = (*experts, -(-rows // block[0]), -(-columns // block[1]))
    scale_name = f"{name}_scale_inv"
    dims: dict[str, Any] = {"output_dim": len(experts), "input_dim": len(experts) + 1, "weight_loader": weight_loader}
    weight = torch.empty(shape, dtype=torch.float8_e4m3fn)
    scale = torch.empty(scale_shape, dtype=torch.float32)
    return [
        (name, ModelParameter(weight, full_name=f"{prefix}.{name}", **dims)),
        (scale_name, ModelParameter(scale, full_name=f"{prefix}.{scale_name}", block=block, **dims)),
    ]
