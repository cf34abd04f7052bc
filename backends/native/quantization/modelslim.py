"""ModelSlim W8A8: every tensor's type is listed in a file beside config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from backends.native.errors import CheckpointError, ConfigError
from backends.native.kernels.reference.int8_linear import INT8_MAX, dequantize_int8
from backends.native.layers.parameter import AttributeParameter
from backends.native.quantization.config import FusedNames
from backends.native.quantization.formats.float8 import SYNTHETIC_INPUT_ABSMAX, absmax_per
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
from backends.native.quantization.stored_config import StoredConfig

QUANT_METHODS = ("modelslim",)
DESCRIBED_IN = ("quant_model_description.json",)
EXAMPLES = {
    "int8 static inputs": {"model_quant_type": "W8A8"},
    "int8 dynamic inputs": {"model_quant_type": "W8A8_DYNAMIC"},
}
WEIGHT = ".weight"
FLOAT, TYPE_OF_MODEL = "FLOAT", "model_quant_type"
SYNTHETIC_OFFSET = 5.0
# A float16 model stores float32 scales as integers of the same bits; no scale is as large as the smallest of them.
SMALLEST_BITS = 2**23


class W8A8DynamicLinearMethod(StoredLinearMethod):
    """INT8 weights, inputs quantized per token."""


class W8A8DynamicMoEMethod(StoredMoEMethod):
    """INT8 experts, inputs quantized per token."""


class W8A8LinearMethod(StoredLinearMethod):
    """INT8 weights, inputs quantized by a stored scale and offset."""


class W8A8MoEMethod(StoredMoEMethod):
    """INT8 experts, inputs quantized by a stored scale and offset."""


@dataclass(frozen=True)
class W8A8Dynamic(StoredWeight):
    """`weight` int8 with `weight_scale` and `weight_offset` [N, 1]."""

    NAME: ClassVar[str] = "W8A8_DYNAMIC"
    OP: ClassVar[str] = "int8_linear"
    LAYOUT_OP: ClassVar[str | None] = "int8_weight_layout"
    MOE_OP: ClassVar[str | None] = "int8_moe"
    LINEAR_METHOD: ClassVar[type[StoredLinearMethod]] = W8A8DynamicLinearMethod
    MOE_METHOD: ClassVar[type[StoredMoEMethod]] = W8A8DynamicMoEMethod

    def tensors(self, part: WeightPart) -> tuple[StoredTensor, ...]:
        """Scales and offsets per output channel."""
        del part
        return (
            StoredTensor("weight", torch.int8),
            StoredTensor("weight_scale", torch.float32, (OUTPUT, 1)),
            StoredTensor("weight_offset", torch.float32, (OUTPUT, 1), parameter=AttributeParameter),
        )

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """Symmetric, so that the offsets are zero."""
        scale = absmax_per("channel", weight) / INT8_MAX
        quantized = (weight.float() / scale).round().to(torch.int8)
        return {"weight": quantized, "weight_scale": scale, "weight_offset": torch.zeros_like(scale)}

    def dequantize(self, tensors: Tensors) -> Tensor:
        """`(weight - offset) * scale`."""
        return dequantize_int8(tensors["weight"], tensors["weight_scale"], tensors["weight_offset"])

    def finish(self, tensors: Tensors, part: WeightPart) -> Tensors:
        """Drop offsets that are all zero, as those of symmetric weights are: kernels need not subtract them."""
        del part
        is_symmetric = not bool(tensors["weight_offset"].any())
        return {name: tensor for name, tensor in tensors.items() if not is_symmetric or name != "weight_offset"}

    def moe_arguments(self, w13: Tensors, w2: Tensors) -> tuple[Tensor, ...] | None:
        """Symmetric weights, which one kernel runs for all experts."""
        if "weight_offset" in w13 or "weight_offset" in w2:
            return None
        return w13["weight"], w13["weight_scale"], w2["weight"], w2["weight_scale"]

    def linear(self, multiply: Multiply, x: Tensor, tensors: Tensors, bias: Tensor | None) -> Tensor:
        """Quantizes `x` per token and multiplies integers."""
        scale, offset = tensors["weight_scale"], tensors.get("weight_offset")
        return multiply(x, tensors["weight"], scale, offset, None, None, True, bias)


@dataclass(frozen=True)
class W8A8Static(W8A8Dynamic):
    """The same with `input_scale`, `input_offset`, and, of both together, `deq_scale` and `quant_bias` [N].

    The bias of a layer is a part of its `quant_bias`.
    """

    NAME: ClassVar[str] = "W8A8"
    OP: ClassVar[str] = "int8_deq_linear"
    LINEAR_METHOD = W8A8LinearMethod
    MOE_METHOD = W8A8MoEMethod

    def tensors(self, part: WeightPart) -> tuple[StoredTensor, ...]:
        """`deq_scale` of a float16 model is stored as integers, which have the bits of its floats."""
        deq_dtype = torch.int64 if part.params_dtype == torch.float16 else torch.float32
        return (
            *super().tensors(part),
            StoredTensor("input_scale", torch.float32, (SHARD,)),
            StoredTensor("input_offset", torch.float32, (SHARD,), parameter=AttributeParameter),
            StoredTensor("deq_scale", deq_dtype, (OUTPUT,), parameter=AttributeParameter),
            StoredTensor("quant_bias", torch.int32, (OUTPUT,), parameter=AttributeParameter),
        )

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """Input scale and offset are made up."""
        stored = super().quantize(weight)
        input_scale = SYNTHETIC_INPUT_ABSMAX / INT8_MAX
        deq_scale = stored["weight_scale"].flatten() * input_scale
        correction = -SYNTHETIC_OFFSET * stored["weight"].double().sum(1)
        is_half = weight.dtype == torch.float16
        return stored | {
            "input_scale": torch.tensor([input_scale]),
            "input_offset": torch.tensor([SYNTHETIC_OFFSET]),
            "deq_scale": deq_scale.view(torch.int32).long() if is_half else deq_scale,
            "quant_bias": correction.to(torch.int32),
        }

    def finish(self, tensors: Tensors, part: WeightPart) -> Tensors:
        """Read scales that are stored as integers; of ranks that sum their outputs one adds `quant_bias`."""
        if bool(tensors["weight_offset"].any()):
            raise CheckpointError(
                f"{part.prefix}.weight_offset is not zero, which {self.NAME} has no correction for.",
                f"quantize the layer as {W8A8Dynamic.NAME}",
            )
        quant_bias = tensors["quant_bias"]
        return {
            **tensors,
            "deq_scale": _floats(tensors["deq_scale"], part),
            "quant_bias": torch.zeros_like(quant_bias) if part.input_part else quant_bias,
        }

    def linear(self, multiply: Multiply, x: Tensor, tensors: Tensors, bias: Tensor | None) -> Tensor:
        """Quantizes `x` by the stored scale and multiplies integers."""
        del bias
        return multiply(
            x,
            tensors["weight"],
            tensors["input_scale"],
            tensors["input_offset"],
            tensors["quant_bias"],
            tensors["deq_scale"],
        )


def _floats(deq_scale: Tensor, part: WeightPart) -> Tensor:
    is_integer = deq_scale.dtype == torch.int64
    if bool(((deq_scale >= SMALLEST_BITS) != is_integer).any()):
        dtypes = ("floats", "float16") if is_integer else ("integers", "another dtype")
        raise CheckpointError(
            f"{part.prefix}.deq_scale is stored as {dtypes[0]}, but was loaded into a model of {dtypes[1]}.",
            "pass the dtype in which the checkpoint was quantized with --dtype",
        )
    return deq_scale.to(torch.int32).view(torch.float32) if is_integer else deq_scale


TYPES: Mapping[str, StoredWeight] = {stored.NAME: stored for stored in (W8A8Static(), W8A8Dynamic())}


@dataclass(frozen=True)
class ModelSlimConfig(StoredConfig):
    """The type of each module's weight, and the one of those that are not listed."""

    CLAIMS = TYPE_OF_MODEL

    types: Mapping[str, str]
    type_of_model: str

    @classmethod
    def claims(cls, quantization: Mapping[str, object]) -> bool:
        """Whether the type of the model is given."""
        return isinstance(quantization.get(TYPE_OF_MODEL), str)

    @classmethod
    def from_fields(
        cls, quantization: Mapping[str, object], packed_modules_mapping: FusedNames, fused_fallback: FusedNames
    ) -> ModelSlimConfig:
        """Read the types; raises ConfigError for one there is no method for."""
        listed = {name.removesuffix(WEIGHT): str(kind) for name, kind in quantization.items() if name.endswith(WEIGHT)}
        types = {TYPE_OF_MODEL: str(quantization[TYPE_OF_MODEL])} | listed
        for module, kind in types.items():
            if kind not in {FLOAT, *TYPES}:
                raise ConfigError(
                    f"{DESCRIBED_IN[0]}: {module} is of type {kind!r}, for which there is no method.",
                    f"use one of: {', '.join((FLOAT, *TYPES))}",
                )
        return cls(
            quant_method=str(quantization["quant_method"]),
            ignored_layers=tuple(module for module, kind in listed.items() if kind == FLOAT),
            ignored_layers_key=DESCRIBED_IN[0],
            packed_modules_mapping=packed_modules_mapping,
            fused_fallback=fused_fallback,
            types=listed,
            type_of_model=types[TYPE_OF_MODEL],
        )

    def entry_names(self, entry: str, module: str) -> bool:
        """The list has every module by its full name."""
        return entry == module

    def stored_as(self, module: str) -> StoredWeight | None:
        """By the type of its weight."""
        return TYPES.get(self._type(module))

    def formats(self) -> tuple[StoredWeight, ...]:
        """All that a description can name."""
        return tuple(TYPES.values())

    def descriptions(self, tensor_names: Mapping[str, bool]) -> Mapping[str, object]:
        """The type of every tensor."""
        listed = {
            name: self._type(name.rpartition(".")[0]) if is_quantized else FLOAT
            for name, is_quantized in tensor_names.items()
        }
        return {DESCRIBED_IN[0]: {TYPE_OF_MODEL: self.type_of_model} | listed}

    def _type(self, module: str) -> str:
        return self.types.get(module, self.type_of_model)
