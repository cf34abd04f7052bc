"""Checkpoints of compressed-tensors: groups of targets, each with its own format of weights and inputs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast

from backends.native.config import AS_PUBLISHED, checked, checked_value
from backends.native.errors import ConfigError
from backends.native.kernels.reference.mxfp4_linear import GROUP as MXFP4_GROUP
from backends.native.kernels.reference.nvfp4_linear import GROUP as NVFP4_GROUP
from backends.native.quantization.config import FusedNames
from backends.native.quantization.formats.float8 import Activations, Float8, Strategy
from backends.native.quantization.formats.float8_blocks import Float8Blocks
from backends.native.quantization.formats.int8 import Int8
from backends.native.quantization.formats.int_groups import PackedInts
from backends.native.quantization.formats.microscaling import Microscaling
from backends.native.quantization.formats.nvfp4 import DIVIDED, Nvfp4
from backends.native.quantization.stored import StoredWeight
from backends.native.quantization.stored_config import StoredConfig

QUANT_METHODS = ("compressed-tensors",)
EXAMPLES = {
    words: {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}, "format": layout}
    for words, layout, weights in (
        ("fp8 per channel", "float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel"}),
        ("int8 per channel", "int-quantized", {"num_bits": 8, "type": "int", "strategy": "channel"}),
        ("int4 groups", "pack-quantized", {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128}),
        (
            "nvfp4",
            "nvfp4-pack-quantized",
            {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16},
        ),
        (
            "float4 groups of 32",
            "mxfp4-pack-quantized",
            {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32},
        ),
    )
}
PATTERN = "re:"
LINEAR = "Linear"
FLOAT4_BITS = 4
FORMATS = (
    "float 8 bits (tensor, channel, block), int 8 bits (tensor, channel), "
    "pack-quantized int 4 and 8 bits (group, channel), float 4 bits in groups of 16 (tensor_group) or 32 (group)"
)


@dataclass(frozen=True)
class Arguments:
    """How the weights or the inputs of a group are quantized."""

    num_bits: int
    type: Literal["int", "float"] = "int"
    strategy: str = "tensor"
    symmetric: bool = True
    dynamic: bool | str = False
    group_size: int | None = None
    block_structure: tuple[int, ...] | None = None
    actorder: str | None = None

    @classmethod
    def from_fields(cls, fields: object, name: str) -> Arguments | None:
        """Check the fields that decide; None where there are none. Raises ConfigError."""
        if fields is None:
            return None
        if not isinstance(fields, dict):
            raise ConfigError(f"config.json: {name} is {fields!r}, expected an object.", AS_PUBLISHED)
        choices = {key: fields[key] for key in ("type", "dynamic", "strategy") if fields.get(key) is not None}
        return checked(cls, fields, **({"type": "int", "dynamic": False, "strategy": "tensor"} | choices))


@dataclass(frozen=True)
class Group:
    """Some targets, module names, `re:` patterns or "Linear", and the format of their weights."""

    targets: tuple[str, ...]
    stored: StoredWeight


@dataclass(frozen=True)
class CompressedTensorsConfig(StoredConfig):
    """Several formats in one checkpoint; modules that no group targets are not quantized."""

    CLAIMS = "config_groups"

    groups: tuple[Group, ...]

    @classmethod
    def claims(cls, quantization: Mapping[str, object]) -> bool:
        """Whether there are groups."""
        return isinstance(quantization.get("config_groups"), dict)

    @classmethod
    def from_fields(
        cls, quantization: Mapping[str, object], packed_modules_mapping: FusedNames, fused_fallback: FusedNames
    ) -> CompressedTensorsConfig:
        """Read groups and ignore list; raises ConfigError for a format there is no method for."""
        groups = cast("Mapping[str, object]", quantization["config_groups"])
        ignored = quantization.get("ignore") or ()
        return cls(
            quant_method=checked_value(quantization["quant_method"], str, "quant_method"),
            ignored_layers=checked_value(ignored, tuple[str, ...], "ignore"),
            ignored_layers_key="ignore",
            packed_modules_mapping=packed_modules_mapping,
            fused_fallback=fused_fallback,
            groups=tuple(_group(name, fields, quantization.get("format")) for name, fields in groups.items()),
        )

    def entry_names(self, entry: str, module: str) -> bool:
        """Names are exact; `re:` introduces an expression that matches from the start of the name."""
        return names_exactly(entry, module)

    def stored_as(self, module: str) -> StoredWeight | None:
        """The format of the first group that targets its name, else of the first that targets its class."""
        by_name = (g for g in self.groups if any(names_exactly(target, module) for target in g.targets))
        by_class = (g for g in self.groups if LINEAR in g.targets)
        group = next(by_name, None) or next(by_class, None)
        return None if group is None else group.stored

    def with_quantized_inputs(self) -> CompressedTensorsConfig:
        """In every group."""
        groups = tuple(Group(group.targets, group.stored.with_quantized_inputs()) for group in self.groups)
        return replace(self, groups=groups)

    def formats(self) -> tuple[StoredWeight, ...]:
        """Those of its groups."""
        return tuple(group.stored for group in self.groups)


def names_exactly(entry: str, module: str) -> bool:
    """Whether an entry, a name or a `re:` pattern, names the module."""
    if entry.startswith(PATTERN):
        return re.match(entry.removeprefix(PATTERN), module) is not None
    return entry == module


def _group(name: str, fields: object, format_of_all: object) -> Group:
    if not isinstance(fields, dict):
        raise ConfigError(f"config.json: config_groups.{name} is {fields!r}, expected an object.", AS_PUBLISHED)
    targets = checked_value(fields.get("targets"), tuple[str, ...], f"config_groups.{name}.targets")
    for target in targets:
        _require_pattern(target)
    weights = Arguments.from_fields(fields.get("weights"), f"config_groups.{name}.weights")
    inputs = Arguments.from_fields(fields.get("input_activations"), f"config_groups.{name}.input_activations")
    stored = None if weights is None else _stored(weights, inputs, str(fields.get("format") or format_of_all))
    if stored is None:
        raise ConfigError(
            f"config.json: config_groups.{name} has no method: weights {weights}, input_activations {inputs}, "
            f"format {fields.get('format') or format_of_all}.",
            f"use one of: {FORMATS}",
        )
    return Group(targets, stored)


def _require_pattern(entry: str) -> None:
    if entry.startswith(PATTERN):
        try:
            re.compile(entry.removeprefix(PATTERN))
        except re.error as error:
            raise ConfigError(f"config.json: {entry!r} is no regular expression: {error}.", AS_PUBLISHED) from error


def _stored(weights: Arguments, inputs: Arguments | None, layout: str) -> StoredWeight | None:
    if layout == "pack-quantized":
        return _packed(weights, inputs)
    if weights.type == "float" and weights.num_bits == FLOAT4_BITS:
        return _float4(weights, inputs)
    activations = _activations(inputs)
    if weights.num_bits != 8 or not weights.symmetric or weights.dynamic or activations is None:
        return None
    if weights.type == "float" and weights.strategy == "block" and weights.block_structure:
        block = cast("tuple[int, int]", weights.block_structure)
        return Float8Blocks(block, "weight_scale", declares_inputs=activations == "dynamic")
    if weights.strategy not in ("tensor", "channel"):
        return None
    strategy = cast("Strategy", weights.strategy)
    if weights.type == "float":
        return Float8(strategy, activations)
    return Int8(strategy, activations, is_input_symmetric=inputs is None or inputs.symmetric)


def _activations(inputs: Arguments | None) -> Activations | None:
    if inputs is None:
        return "none"
    if inputs.dynamic is True:
        is_known = inputs.strategy in ("token", "group") and inputs.symmetric
        return "dynamic" if is_known and inputs.num_bits == 8 else None
    return "static" if inputs.strategy == "tensor" and inputs.num_bits == 8 else None


def _float4(weights: Arguments, inputs: Arguments | None) -> StoredWeight | None:
    if inputs is not None and (inputs.type, inputs.num_bits, inputs.group_size) != (
        "float",
        FLOAT4_BITS,
        weights.group_size,
    ):
        return None
    if (weights.strategy, weights.group_size) == ("tensor_group", NVFP4_GROUP):
        return Nvfp4(DIVIDED, is_quantizing_inputs=inputs is not None)
    if (weights.strategy, weights.group_size) == ("group", MXFP4_GROUP):
        return Microscaling("weight_packed", is_quantizing_inputs=inputs is not None)
    return None


def _packed(weights: Arguments, inputs: Arguments | None) -> StoredWeight | None:
    is_known = weights.num_bits in (4, 8) and weights.type == "int" and inputs is None
    if not is_known or weights.strategy not in ("group", "channel"):
        return None
    return PackedInts(
        weights.num_bits,
        weights.group_size if weights.strategy == "group" else None,
        is_symmetric=weights.symmetric,
        has_g_idx=weights.actorder == "group",
    )
