"""Checkpoints of ModelOpt: NVFP4, and FP8 per tensor or per channel, described in config.json or beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from backends.native.config import AS_PUBLISHED, checked_value
from backends.native.errors import ConfigError
from backends.native.quantization.config import FusedNames
from backends.native.quantization.formats.float8 import Float8
from backends.native.quantization.formats.nvfp4 import MULTIPLIED, Nvfp4
from backends.native.quantization.skip import names_module
from backends.native.quantization.stored import StoredWeight
from backends.native.quantization.stored_config import OneFormatConfig

QUANT_METHODS = ("modelopt", "modelopt_fp4")
DESCRIBED_IN = ("hf_quant_config.json",)
EXAMPLES = {
    "nvfp4": {"quant_algo": "NVFP4"},
    "fp8 per tensor": {"quant_algo": "FP8"},
    "fp8 per channel": {"quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"},
}
IGNORE_KEYS = ("ignore", "exclude_modules")
ALGORITHMS: Mapping[object, StoredWeight] = {
    "NVFP4": Nvfp4(MULTIPLIED),
    "W4A16_NVFP4": Nvfp4(MULTIPLIED, is_quantizing_inputs=False),
    "FP8": Float8("tensor", "static"),
    "FP8_PER_CHANNEL_PER_TOKEN": Float8("channel", "dynamic"),
}


@dataclass(frozen=True)
class ModelOptConfig(OneFormatConfig):
    """One algorithm for every layer that the ignore list leaves in; its entries may hold wildcards."""

    CLAIMS = "quant_algo"

    @classmethod
    def claims(cls, quantization: Mapping[str, object]) -> bool:
        """Whether an algorithm is named, at the top or under `quantization` as in the file beside config.json."""
        return _fields(quantization).get("quant_algo") is not None

    @classmethod
    def from_fields(
        cls, quantization: Mapping[str, object], packed_modules_mapping: FusedNames, fused_fallback: FusedNames
    ) -> ModelOptConfig:
        """Read the algorithm and the ignore list under either of its names; raises ConfigError."""
        fields = _fields(quantization)
        algorithm = fields["quant_algo"]
        if algorithm not in ALGORITHMS:
            raise ConfigError(
                f"config.json: quant_algo is {algorithm!r}, for which there is no method.",
                f"use one of: {', '.join(map(str, ALGORITHMS))}",
            )
        key = next((key for key in IGNORE_KEYS if fields.get(key) is not None), None)
        return cls(
            quant_method=checked_value(quantization["quant_method"], str, "quant_method"),
            ignored_layers=checked_value(fields[key], tuple[str, ...], key) if key else (),
            ignored_layers_key=key,
            packed_modules_mapping=packed_modules_mapping,
            fused_fallback=fused_fallback,
            stored=ALGORITHMS[algorithm],
        )

    def entry_names(self, entry: str, module: str) -> bool:
        """From dot to dot, or by wildcards over the whole name."""
        return names_module(entry, module) or fnmatchcase(module, entry)

    def descriptions(self, tensor_names: Mapping[str, bool]) -> Mapping[str, object]:
        """hf_quant_config.json, which says the same as config.json."""
        del tensor_names
        algorithm = next(name for name, stored in ALGORITHMS.items() if stored == self.stored)
        fields = {"quant_algo": algorithm, "kv_cache_quant_algo": None, "exclude_modules": list(self.ignored_layers)}
        return {DESCRIBED_IN[0]: {"quantization": fields}}


def _fields(quantization: Mapping[str, object]) -> Mapping[str, object]:
    nested = quantization.get("quantization", quantization)
    if not isinstance(nested, dict):
        raise ConfigError(f"config.json: quantization is {nested!r}, expected an object.", AS_PUBLISHED)
    return nested
