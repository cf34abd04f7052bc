"""Checkpoints whose modules are stored in formats: what follows from which format a module has."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from backends.native.errors import ConfigError
from backends.native.layers.linear import LinearBase
from backends.native.layers.moe import FusedMoE
from backends.native.quantization.config import QuantizationConfig
from backends.native.quantization.plain import plain_method
from backends.native.quantization.stored import StoredWeight, Tensors

WEIGHT = ".weight"


class StoredConfig(QuantizationConfig):
    """A config that says for each module on disk in which format its weight is stored."""

    @abstractmethod
    def stored_as(self, module: str) -> StoredWeight | None:
        """The format of a module that is not ignored; None for one that is not quantized all the same."""

    @abstractmethod
    def formats(self) -> tuple[StoredWeight, ...]:
        """All formats of the checkpoint."""

    def get_quant_method(self, layer: nn.Module, prefix: str) -> Any:
        """The method of the format that all of the layer's modules on disk have; embedding and head are left alone.

        Raises ConfigError where the modules of a fused layer are stored differently.
        """
        if not isinstance(layer, LinearBase | FusedMoE) or self.is_skipped(prefix):
            return plain_method(layer)
        names = self.names_on_disk(prefix)
        formats = {self.stored_as(name) for name in names}
        if len(formats) > 1:
            raise ConfigError(
                f"{prefix} is one fused layer, but {', '.join(names)} are stored in {len(formats)} different formats: "
                f"{', '.join(sorted(map(str, formats)))}.",
                "give all of its shards the same format",
            )
        stored = formats.pop()
        if stored is None:
            return plain_method(layer)
        return stored.MOE_METHOD(stored) if isinstance(layer, FusedMoE) else stored.LINEAR_METHOD(stored)

    def quantize(self, name: str, weight: Tensor) -> dict[str, Tensor]:
        """The tensors on disk of the weight called `name`, beside it."""
        module = name.removesuffix(WEIGHT)
        stored = self.stored_as(module)
        if stored is None:
            return {name: weight}
        return {f"{module}.{suffix}": tensor for suffix, tensor in stored.quantize(weight).items()}

    def dequantize(self, module: str, tensors: Tensors) -> Tensor:
        """The weight of a module on disk from its tensors by suffix: float32, or as it is where it is not quantized."""
        stored = None if self.is_ignored(module) else self.stored_as(module)
        return tensors["weight"] if stored is None else stored.dequantize(tensors)

    def dtypes(self) -> frozenset[torch.dtype]:
        """Those of its formats."""
        return frozenset[torch.dtype]().union(*(stored.dtypes() for stored in self.formats()))


@dataclass(frozen=True)
class OneFormatConfig(StoredConfig):
    """A checkpoint whose modules are all stored in one format, apart from those that are ignored."""

    stored: StoredWeight

    def with_quantized_inputs(self) -> OneFormatConfig:
        """In that format."""
        return replace(self, stored=self.stored.with_quantized_inputs())

    def stored_as(self, module: str) -> StoredWeight | None:
        """The one format."""
        del module
        return self.stored

    def formats(self) -> tuple[StoredWeight, ...]:
        """The one format."""
        return (self.stored,)
