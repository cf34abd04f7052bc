"""Checkpoints in MXFP4, whose linear layers and experts are all stored alike."""

from __future__ import annotations

from collections.abc import Mapping

from backends.native.config import checked_value
from backends.native.quantization.config import FusedNames
from backends.native.quantization.formats.microscaling import Microscaling
from backends.native.quantization.stored_config import OneFormatConfig

QUANT_METHODS = ("mxfp4",)
EXAMPLES: Mapping[str, Mapping[str, object]] = {"float4 groups of 32": {}}
IGNORE_KEY = "modules_to_not_convert"


class Mxfp4Config(OneFormatConfig):
    """Weight-only: the inputs stay as they are."""

    CLAIMS = "its own name"

    @classmethod
    def claims(cls, quantization: Mapping[str, object]) -> bool:
        """Any checkpoint of that name."""
        del quantization
        return True

    @classmethod
    def from_fields(
        cls, quantization: Mapping[str, object], packed_modules_mapping: FusedNames, fused_fallback: FusedNames
    ) -> Mxfp4Config:
        """Read the ignore list."""
        return cls(
            quant_method=checked_value(quantization["quant_method"], str, "quant_method"),
            ignored_layers=checked_value(quantization.get(IGNORE_KEY) or (), tuple[str, ...], IGNORE_KEY),
            ignored_layers_key=IGNORE_KEY,
            packed_modules_mapping=packed_modules_mapping,
            fused_fallback=fused_fallback,
            stored=Microscaling(),
        )
