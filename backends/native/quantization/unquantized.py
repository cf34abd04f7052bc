"""Checkpoints without a quantization_config: every layer runs in the model's dtype."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from backends.native.quantization.config import FusedNames, QuantizationConfig
from backends.native.quantization.plain import plain_method

QUANT_METHODS = (None,)


class UnquantizedConfig(QuantizationConfig):
    """Chooses the plain method for every layer; there is no ignore list to read."""

    CLAIMS = "no quantization_config"

    @classmethod
    def claims(cls, quantization: Mapping[str, object]) -> bool:
        """Whether there is no quantization_config."""
        return not quantization

    @classmethod
    def from_fields(
        cls, quantization: Mapping[str, object], packed_modules_mapping: FusedNames, fused_fallback: FusedNames
    ) -> UnquantizedConfig:
        """Nothing to read."""
        del quantization
        return cls(None, (), None, packed_modules_mapping, fused_fallback)

    def get_quant_method(self, layer: nn.Module, prefix: str) -> Any:
        """The plain method, whatever the name."""
        del prefix
        return plain_method(layer)

    def quantize(self, name: str, weight: Tensor) -> dict[str, Tensor]:
        """The weight itself."""
        return {name: weight}
