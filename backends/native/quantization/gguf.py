"""GGUF: weights in blocks of ggml types, read from files whose metadata stand for config.json."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from backends.devices.placement import Placement
from backends.native.checkpoint.gguf_layout import GgmlLayout
from backends.native.checkpoint.gguf_names import parts_of
from backends.native.checkpoint.gguf_weights import GgufSizes, GgufWeights, types_of
from backends.native.checkpoint.header import TensorEntry
from backends.native.config import checked
from backends.native.errors import ConfigError
from backends.native.kernels.reference.dequantize_gguf import dequantize_gguf
from backends.native.kernels.reference.ggml_types import BY_NAME
from backends.native.kernels.reference.quantize_gguf import quantize_gguf
from backends.native.layers.moe import FusedMoE
from backends.native.layers.vocab import VocabParallelEmbedding
from backends.native.quantization.config import FusedNames, QuantizationConfig
from backends.native.quantization.formats.ggml_linear import (
    GGUFEmbeddingMethod,
    GGUFLinearMethod,
    GGUFTiledLinearMethod,
)
from backends.native.quantization.formats.ggml_moe import GGUFMoEMethod
from backends.native.quantization.plain import plain_method

QUANT_METHODS = ("gguf",)
WRITTEN_TYPE = "Q8_0"


@dataclass(frozen=True)
class GGUFConfig(QuantizationConfig):
    """Chooses the method of each layer by the types of its tensors: in blocks where one of them is."""

    CLAIMS = "tensor_types, as they are read from the header of a GGUF file"

    weights: GgufWeights
    modules: frozenset[str]

    @classmethod
    def claims(cls, quantization: Mapping[str, object]) -> bool:
        """Whether it was read from a file's header; a config.json that only says so has no types to choose by."""
        return isinstance(quantization.get("tensor_types"), dict)

    @classmethod
    def from_fields(
        cls, quantization: Mapping[str, object], packed_modules_mapping: FusedNames, fused_fallback: FusedNames
    ) -> GGUFConfig:
        """Types, layout and sizes; raises ConfigError for a field that is not what a header gives."""
        types, layout, sizes = (quantization.get(key) for key in ("tensor_types", "layout", "sizes"))
        if not (isinstance(types, dict) and isinstance(layout, dict) and isinstance(sizes, dict)):
            raise ConfigError(
                "quantization_config has no tensor_types, layout and sizes.", "pass the GGUF file instead of a folder"
            )
        weights = GgufWeights(types_of(types), checked(GgmlLayout, layout), checked(GgufSizes, sizes))
        return cls(
            QUANT_METHODS[0],
            (),
            None,
            packed_modules_mapping,
            fused_fallback,
            weights=weights,
            modules=weights.quantized_modules(),
        )

    def get_quant_method(self, layer: nn.Module, prefix: str) -> Any:
        """Blocks where one of the layer's tensors is in blocks, else the plain method."""
        names = ["model.embed_tokens"] if prefix == "lm_head" and self.is_tied else parts_of(prefix)
        if not self.modules.intersection(names):
            return plain_method(layer)
        if isinstance(layer, FusedMoE):
            return GGUFMoEMethod()
        if self.weights.are_columns_tiled(prefix):
            return GGUFTiledLinearMethod(self.weights.sizes.values_per_key, self.weights.sizes.linear_value_head_dim)
        return GGUFEmbeddingMethod() if isinstance(layer, VocabParallelEmbedding) else GGUFLinearMethod()

    @property
    def is_tied(self) -> bool:
        """Whether the head is the embedding."""
        return "output.weight" not in self.weights.types

    def dtypes(self) -> frozenset[torch.dtype]:
        """Bytes."""
        return frozenset({torch.uint8})

    def model_weights(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """The tensors under the model's names, with what a converter changed undone."""
        return self.weights.translated(weights)

    def memory_forecast(
        self, entries: Iterable[TensorEntry], placement: Placement, dtype: torch.dtype, tp_size: int
    ) -> str | None:
        """How large the weights become where the device has no kernels for blocks: they are dequantized once."""
        if placement.kind.keeps_quantized_blocks:
            return None
        stored = [entry for entry in entries if self.modules.intersection(self.weights.modules_of(entry.name))]
        dense = [elements_of(entry) * dtype.itemsize // tp_size for entry in stored]
        blocks = sum(entry.end_byte - entry.start_byte for entry in stored) // tp_size
        free = placement.memory().free_bytes
        lacking = f", of which only {mebibytes(free)} are free" if free < sum(dense) else ""
        return (
            f"{placement} reads no blocks: after the load about {mebibytes(blocks)} of them a rank become "
            f"{mebibytes(sum(dense))} of {str(dtype).removeprefix('torch.')} on the device{lacking}; until then the "
            f"host keeps the blocks and the largest weight ({mebibytes(max(dense, default=0))})"
        )

    def quantize(self, name: str, weight: Tensor) -> dict[str, Tensor]:
        """The weight in Q8_0, under the names that loading gives it."""
        module, ggml_type = name.removesuffix(".weight"), BY_NAME[WRITTEN_TYPE]
        stored = torch.tensor([ggml_type.number], dtype=torch.uint8)
        return {f"{module}.qweight_type": stored, f"{module}.qweight": quantize_gguf(weight, ggml_type.number)}

    def quantize_like(self, name: str, weight: Tensor, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weight in the type of `stored`; raises KernelError for one that nothing quantizes to."""
        module, ggml_type = name.removesuffix(".weight"), stored["qweight_type"]
        return {f"{module}.qweight_type": ggml_type, f"{module}.qweight": quantize_gguf(weight, int(ggml_type))}

    def dequantize(self, module: str, tensors: Mapping[str, Tensor]) -> Tensor:
        """float32 [output, input] of one projection."""
        del module
        return dequantize_gguf(tensors["qweight"], int(tensors["qweight_type"]), torch.float32)


def elements_of(entry: TensorEntry) -> int:
    """Elements of a tensor in a file, whose last size counts bytes where it is in blocks."""
    known = BY_NAME[entry.dtype]
    return (entry.end_byte - entry.start_byte) // known.block_bytes * known.block_elements


def mebibytes(size: int) -> str:
    """A size for people."""
    return f"{size / 2**20:,.1f} MiB"
