"""GPTQ: integer groups packed along the input, in order or, with desc_act, in any order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from backends.native.config import AS_PUBLISHED, checked_value
from backends.native.errors import CheckpointError, ConfigError
from backends.native.kernels.reference.gptq_linear import dequantize_gptq
from backends.native.kernels.reference.packing import WORD_BITS, pack_int32
from backends.native.quantization.config import FusedNames
from backends.native.quantization.formats.int_groups import GROUP_REMEDY, columns_by_norm, quantize_groups
from backends.native.quantization.skip import names_module
from backends.native.quantization.stored import (
    INPUT,
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
from backends.native.quantization.stored_config import OneFormatConfig

QUANT_METHODS = ("gptq",)
EXAMPLES = {"int4 groups": {"bits": 4, "group_size": 128, "sym": True, "desc_act": False}}
IGNORE_KEY = "modules_to_not_convert"
LEFT_OUT = "-:"
"""Introduces an expression over names of modules that are not quantized."""
BITS = (2, 4, 8)
ZERO_SHIFTS: Mapping[object, int] = {"gptq": 1, "gptq_v2": 0}
"""What a checkpoint_format subtracts from zero points before it packs them."""


class GPTQLinearMethod(StoredLinearMethod):
    """Weight-only reference: dequantizes the groups, leaves the input as it is."""


class GPTQMoEMethod(StoredMoEMethod):
    """Weight-only experts: dequantizes the chosen ones."""


@dataclass(frozen=True)
class GPTQWeight(StoredWeight):
    """`qweight` [input / n, output], `qzeros` [groups, output / n], `scales` [groups, output], `g_idx` [input].

    `group_size` None is one group; n = 32 / bits.
    """

    bits: int
    group_size: int | None
    is_symmetric: bool = True
    is_reordered: bool = False
    zero_shift: int = 1

    OP = "gptq_linear"
    LINEAR_METHOD = GPTQLinearMethod
    MOE_METHOD = GPTQMoEMethod

    @property
    def per_word(self) -> int:
        """Values in an int32."""
        return WORD_BITS // self.bits

    def tensors(self, part: WeightPart) -> tuple[StoredTensor, ...]:
        """Where any input may be of any group, every rank has the scales of all groups."""
        size = self.group_size or part.input_size
        groups: str | int = part.input_size // size if self.is_reordered or self.group_size is None else INPUT
        return (
            StoredTensor("qweight", torch.int32, (INPUT, OUTPUT), block=(1, self.per_word)),
            StoredTensor("qzeros", torch.int32, (groups, OUTPUT), block=(self.per_word, size)),
            StoredTensor("scales", torch.float32, (groups, OUTPUT), block=(1, size)),
            StoredTensor("g_idx", torch.int32, (SHARD, INPUT)),
        )

    def require_shape(self, part: WeightPart) -> None:
        """Raise ShapeError for a group or a word that is cut."""
        is_grouped = self.group_size is not None and not self.is_reordered
        columns = max(self.per_word, self.group_size or 0) if is_grouped else self.per_word
        part.require_divisible(output=self.per_word, input=columns, remedy=GROUP_REMEDY)

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """Scales in float16; with groups in any order, columns are taken by their size."""
        size = self.group_size or weight.shape[1]
        order, g_idx = columns_by_norm(weight, size)
        if not self.is_reordered:
            order, g_idx = torch.arange(weight.shape[1]), (torch.arange(weight.shape[1]) // size).int()
        codes, scales, zeros = quantize_groups(
            weight[:, order], self.bits, size, is_symmetric=self.is_symmetric, scale_dtype=torch.float16
        )
        stored_zeros = (zeros.t() - self.zero_shift) % 2**self.bits
        return {
            "qweight": pack_int32(codes[:, order.argsort()].t(), self.bits, 0),
            "qzeros": pack_int32(stored_zeros, self.bits, 1),
            "scales": scales.t().contiguous(),
            "g_idx": g_idx,
        }

    def dequantize(self, tensors: Tensors) -> Tensor:
        """The integers less their zero point, times the scale of their group."""
        return dequantize_gptq(*self._operands(tensors), self.bits, self.zero_shift)

    def finish(self, tensors: Tensors, part: WeightPart) -> Tensors:
        """Drop a `g_idx` that says what is known; raises CheckpointError where it contradicts the config."""
        if self.is_reordered:
            return tensors
        g_idx = tensors["g_idx"]
        inputs = torch.arange(g_idx.shape[-1], device=g_idx.device) + part.input_part * g_idx.shape[-1]
        if bool((g_idx != inputs // (self.group_size or part.input_size)).any()):
            raise CheckpointError(
                f"{part.prefix}.g_idx puts the inputs into groups in another order, but desc_act is false.",
                "set desc_act to true in the quantization_config",
            )
        return {suffix: tensor for suffix, tensor in tensors.items() if suffix != "g_idx"}

    def linear(self, multiply: Multiply, x: Tensor, tensors: Tensors, bias: Tensor | None) -> Tensor:
        """Dequantizes the weight, leaves `x` as it is."""
        return multiply(x, *self._operands(tensors), self.bits, self.zero_shift, bias)

    @staticmethod
    def _operands(tensors: Tensors) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        return tensors["qweight"], tensors["qzeros"], tensors["scales"], tensors.get("g_idx")


@dataclass(frozen=True)
class GPTQConfig(OneFormatConfig):
    """One format for every layer that is not left out."""

    CLAIMS = f"bits: one of {', '.join(map(str, BITS))}"

    @classmethod
    def claims(cls, quantization: Mapping[str, object]) -> bool:
        """Whether whole integers fill a word."""
        return quantization.get("bits") in BITS

    @classmethod
    def from_fields(
        cls, quantization: Mapping[str, object], packed_modules_mapping: FusedNames, fused_fallback: FusedNames
    ) -> GPTQConfig:
        """Read bits, groups and what is left out; raises ConfigError for a layout there is no method for."""
        layout = quantization.get("checkpoint_format") or "gptq"
        if layout not in ZERO_SHIFTS:
            raise ConfigError(
                f"config.json: checkpoint_format is {layout!r}, for which there is no method.",
                f"convert the checkpoint to one of: {', '.join(map(str, ZERO_SHIFTS))}",
            )
        size = checked_value(quantization.get("group_size"), int, "group_size")
        if size < 1 and size != -1:
            raise ConfigError(f"config.json: group_size is {size}, expected -1 or a positive size.", AS_PUBLISHED)
        stored = GPTQWeight(
            checked_value(quantization.get("bits"), int, "bits"),
            None if size == -1 else size,
            is_symmetric=checked_value(quantization.get("sym", True), bool, "sym"),
            is_reordered=checked_value(quantization.get("desc_act", False), bool, "desc_act"),
            zero_shift=ZERO_SHIFTS[layout],
        )
        key, left_out = _left_out(quantization)
        return cls(
            quant_method=checked_value(quantization["quant_method"], str, "quant_method"),
            ignored_layers=left_out,
            ignored_layers_key=key,
            packed_modules_mapping=packed_modules_mapping,
            fused_fallback=fused_fallback,
            stored=stored,
        )

    def entry_names(self, entry: str, module: str) -> bool:
        """From dot to dot; `-:` introduces an expression that matches from the start of the name."""
        if entry.startswith(LEFT_OUT):
            return re.match(entry.removeprefix(LEFT_OUT), module) is not None
        return names_module(entry, module)


def _left_out(quantization: Mapping[str, object]) -> tuple[str, tuple[str, ...]]:
    """The key that says what is not quantized, and its entries; what lists the quantized modules is turned around."""
    dynamic, inside = quantization.get("dynamic"), quantization.get("modules_in_block_to_quantize")
    if isinstance(dynamic, dict) and dynamic:
        overrides = [entry for entry in dynamic if not entry.startswith(LEFT_OUT)]
        if overrides:
            raise ConfigError(
                f"config.json: dynamic gives {', '.join(overrides)} a format of its own: there is no method.",
                f"quantize all layers alike, or leave them out with {LEFT_OUT}",
            )
        return "dynamic", tuple(dynamic)
    if inside:
        listed = checked_value(inside, tuple[tuple[str, ...], ...], "modules_in_block_to_quantize")
        names = "|".join(re.escape(name) for names in listed for name in names)
        return "modules_in_block_to_quantize", (rf"{LEFT_OUT}(?!.*\.(?:{names})$)",)
    return IGNORE_KEY, checked_value(quantization.get(IGNORE_KEY) or (), tuple[str, ...], IGNORE_KEY)
