"""Checkpoints in MXFP4, whose linear layers and experts are all stored alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from backends.native.config import checked_value
from backends.native.quantization.config import FusedNames, QuantizationConfig
from backends.native.quantization.formats.microscaling import Microscaling
from backends.native.quantization.stored import method_for, named

QUANT_METHODS = ("mxfp4",)
IGNORE_KEY = "modules_to_not_convert"
STORED = Microscaling()


class Mxfp4Config(QuantizationConfig):
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
        )

    def dtypes(self) -> frozenset[torch.dtype]:
        """Those of its format."""
        return STORED.dtypes()

    def get_quant_method(self, layer: nn.Module, prefix: str) -> Any:
        """MXFP4 for linear layers and experts that the ignore list leaves in."""
        return method_for(layer, STORED, is_skipped=lambda: self.is_skipped(prefix))

    def quantize(self, name: str, weight: Tensor) -> dict[str, Tensor]:
        """Codes and exponents."""
        return named(name, STORED.quantize(weight))
