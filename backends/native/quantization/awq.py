"""AWQ: INT4 groups with zero points, packed along the output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from backends.native.config import AS_PUBLISHED, checked_value
from backends.native.errors import ConfigError
from backends.native.kernels.reference.awq_linear import BITS, OUTPUT_ORDER, dequantize_awq
from backends.native.kernels.reference.packing import WORD_BITS, pack_int32
from backends.native.quantization.config import FusedNames
from backends.native.quantization.formats.int_groups import GROUP_REMEDY, quantize_groups
from backends.native.quantization.stored import (
    INPUT,
    OUTPUT,
    Multiply,
    StoredLinearMethod,
    StoredMoEMethod,
    StoredTensor,
    StoredWeight,
    Tensors,
    WeightPart,
)
from backends.native.quantization.stored_config import OneFormatConfig

QUANT_METHODS = ("awq",)
EXAMPLES = {"int4 groups": {"bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}}
IGNORE_KEY = "modules_to_not_convert"
BITS_KEYS, GROUP_KEYS = ("bits", "w_bit"), ("group_size", "q_group_size")
LAYOUT = "gemm"
PER_WORD = WORD_BITS // BITS


class AWQLinearMethod(StoredLinearMethod):
    """Weight-only reference: dequantizes the groups, leaves the input as it is."""


class AWQMoEMethod(StoredMoEMethod):
    """Weight-only experts: dequantizes the chosen ones."""


@dataclass(frozen=True)
class AWQWeight(StoredWeight):
    """`qweight` [input, output / 8], `qzeros` [groups, output / 8], `scales` [groups, output]; None is one group."""

    group_size: int | None

    OP = "awq_linear"
    LINEAR_METHOD = AWQLinearMethod
    MOE_METHOD = AWQMoEMethod

    def tensors(self, part: WeightPart) -> tuple[StoredTensor, ...]:
        """Zero points and scales follow the input by groups."""
        groups: str | int = INPUT if self.group_size else 1
        size = self.group_size or part.input_size
        return (
            StoredTensor("qweight", torch.int32, (INPUT, OUTPUT), block=(PER_WORD, 1)),
            StoredTensor("qzeros", torch.int32, (groups, OUTPUT), block=(PER_WORD, size)),
            StoredTensor("scales", torch.float32, (groups, OUTPUT), block=(1, size)),
        )

    def require_shape(self, part: WeightPart) -> None:
        """Raise ShapeError for a group or a word that is cut."""
        part.require_divisible(output=PER_WORD, input=self.group_size or 1, remedy=GROUP_REMEDY)

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """From the smallest to the largest of each group; scales in float16."""
        size = self.group_size or weight.shape[1]
        codes, scales, zeros = quantize_groups(weight, BITS, size, is_symmetric=False, scale_dtype=torch.float16)
        return {
            "qweight": pack_int32(codes.t(), BITS, 1, OUTPUT_ORDER),
            "qzeros": pack_int32(zeros.t(), BITS, 1, OUTPUT_ORDER),
            "scales": scales.t().contiguous(),
        }

    def dequantize(self, tensors: Tensors) -> Tensor:
        """The integers less their zero point, times the scale of their group."""
        return dequantize_awq(tensors["qweight"], tensors["qzeros"], tensors["scales"])

    def linear(self, multiply: Multiply, x: Tensor, tensors: Tensors, bias: Tensor | None) -> Tensor:
        """Dequantizes the weight, leaves `x` as it is."""
        return multiply(x, tensors["qweight"], tensors["qzeros"], tensors["scales"], bias)


@dataclass(frozen=True)
class AWQConfig(OneFormatConfig):
    """One group size for every layer that the ignore list leaves in."""

    CLAIMS = "4 bits"

    @classmethod
    def claims(cls, quantization: Mapping[str, object]) -> bool:
        """Whether the weights have 4 bits."""
        return _first(quantization, BITS_KEYS) == BITS

    @classmethod
    def from_fields(
        cls, quantization: Mapping[str, object], packed_modules_mapping: FusedNames, fused_fallback: FusedNames
    ) -> AWQConfig:
        """Read the group size and the ignore list; raises ConfigError for another layout of words."""
        layout = quantization.get("version", LAYOUT)
        if str(layout).lower() != LAYOUT or quantization.get("zero_point") is False:
            raise ConfigError(
                f"config.json: version is {layout!r} and zero_point {quantization.get('zero_point')!r}, for which "
                f"there is no method.",
                f"convert the checkpoint to version {LAYOUT} with zero points",
            )
        size = checked_value(_first(quantization, GROUP_KEYS), int, "group_size")
        if size < 1 and size != -1:
            raise ConfigError(f"config.json: group_size is {size}, expected -1 or a positive size.", AS_PUBLISHED)
        return cls(
            quant_method=checked_value(quantization["quant_method"], str, "quant_method"),
            ignored_layers=checked_value(quantization.get(IGNORE_KEY) or (), tuple[str, ...], IGNORE_KEY),
            ignored_layers_key=IGNORE_KEY,
            packed_modules_mapping=packed_modules_mapping,
            fused_fallback=fused_fallback,
            stored=AWQWeight(None if size == -1 else size),
        )


def _first(fields: Mapping[str, object], keys: tuple[str, ...]) -> object:
    return next((fields[key] for key in keys if fields.get(key) is not None), None)
