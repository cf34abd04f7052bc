"""What a quantization method is: a checkpoint-wide config that chooses, and methods that create, finish and apply."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from backends.devices.placement import Placement, devices_with
from backends.native.checkpoint.header import TensorEntry
from backends.native.errors import KernelError
from backends.native.quantization.skip import expanded, is_layer_skipped, names_module

Layer = TypeVar("Layer", bound=nn.Module)
FusedNames = Mapping[str, Sequence[str]]


class QuantizeMethod(ABC, Generic[Layer]):
    """What executes one layer: the field's three verbs, of which `apply` belongs to the kind of layer."""

    @abstractmethod
    def create_weights(
        self,
        layer: Layer,
        input_size_per_partition: int,
        output_partition_sizes: Sequence[int],
        input_size: int,
        output_size: int,
        params_dtype: Any,
        **extra: Any,
    ) -> None:
        """Register uninitialised parameters on `layer`, which knows its `prefix`.

        `extra` has its `weight_loader` and, for layers that a kernel multiplies, the kind of `kernels`.
        """

    def process_weights_after_loading(self, layer: Layer) -> None:
        """Repack what was loaded for the kernel; the reference kernels take the layout of the checkpoint."""


class LinearMethod(QuantizeMethod[Layer]):
    """A method of linear layers."""

    @abstractmethod
    def apply(self, layer: Layer, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """`x` [tokens, input_size_per_partition] -> [tokens, sum(output_partition_sizes)] in the dtype of `x`."""

    def embedding(self, layer: Layer, local_ids: Tensor) -> Tensor:
        """Rows of a vocabulary's weight: int64 [tokens] -> [tokens, input_size_per_partition]."""
        rows: Tensor = layer.get_parameter("weight")[local_ids]
        return rows


class MoEMethod(QuantizeMethod[Layer]):
    """A method of fused experts."""

    @abstractmethod
    def apply(
        self, layer: Layer, x: Tensor, bias: Tensor | None = None, *, topk_weights: Tensor, topk_ids: Tensor
    ) -> Tensor:
        """Weighted sum of the chosen experts' outputs: `x` [tokens, hidden], `topk_*` [tokens, top_k]."""


@dataclass(frozen=True)
class QuantizationConfig(ABC):
    """How a whole checkpoint is quantized and which layers are not, as its config.json says."""

    CLAIMS: ClassVar[str]

    quant_method: str | None
    ignored_layers: tuple[str, ...]
    ignored_layers_key: str | None
    packed_modules_mapping: FusedNames
    fused_fallback: FusedNames

    @classmethod
    @abstractmethod
    def claims(cls, quantization: Mapping[str, object]) -> bool:
        """Whether this class is the one for that quantization_config; `CLAIMS` says in words what it wants."""

    @classmethod
    @abstractmethod
    def from_fields(
        cls, quantization: Mapping[str, object], packed_modules_mapping: FusedNames, fused_fallback: FusedNames
    ) -> QuantizationConfig:
        """Read the fields of quantization_config; raises ConfigError for the first wrong one."""

    @abstractmethod
    def get_quant_method(self, layer: nn.Module, prefix: str) -> Any:
        """The method object that executes `layer`, whose full dotted name is `prefix`."""

    def dtypes(self) -> frozenset[torch.dtype]:
        """What the tensors of such a checkpoint may be stored in, apart from the model's dtype."""
        return frozenset()

    def require_device(self, placement: Placement, dtype: torch.dtype) -> None:
        """Raise KernelError before anything is loaded where the device cannot hold, or multiply, such a checkpoint."""
        stored, device = self.dtypes(), placement.kind
        missing = stored & device.missing_dtypes
        if missing:
            raise KernelError(
                f"quant_method {self.quant_method!r} stores {_listed(missing)}, which the device {placement} does not "
                "have.",
                f"use another device ({', '.join(devices_with(stored))}), or a checkpoint in int8, int4 or bfloat16",
            )
        inputs = device.integer_input_dtypes
        if torch.int8 in stored and inputs is not None and dtype not in inputs:
            raise KernelError(
                f"quant_method {self.quant_method!r} multiplies int8, for which the device {placement} takes inputs in "
                f"{_listed(inputs)}, not in {_listed({dtype})}.",
                f"pass --dtype {_listed({min(inputs, key=str)})}",
            )

    def with_quantized_inputs(self) -> QuantizationConfig:
        """The same with inputs quantized wherever the checkpoint says so; most formats do that in any case."""
        return self

    def entry_names(self, entry: str, module: str) -> bool:
        """Whether an entry of the ignore list names the module; methods differ in their patterns."""
        return names_module(entry, module)

    def is_skipped(self, prefix: str) -> bool:
        """Whether the layer called `prefix` stays in the model's dtype; raises SkipDecisionError."""
        return is_layer_skipped(
            prefix, self.ignored_layers, self.packed_modules_mapping, self.fused_fallback, self.entry_names
        )

    def names_on_disk(self, prefix: str) -> list[str]:
        """The modules on disk that the layer called `prefix` is fused from, or itself."""
        return expanded(prefix, prefix.rpartition(".")[2], self.packed_modules_mapping, self.fused_fallback)[1]

    def is_ignored(self, module: str) -> bool:
        """Whether the list names a module that is not fused, as those on disk."""
        return any(self.entry_names(entry, module) for entry in self.ignored_layers)

    @abstractmethod
    def quantize(self, name: str, weight: Tensor) -> dict[str, Tensor]:
        """The tensors on disk that stand for the full-precision `weight` called `name`."""

    def quantize_like(self, name: str, weight: Tensor, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `quantize`, in the format in which `stored`, tensors by suffix, has the weight called `name`."""
        del stored
        return self.quantize(name, weight)

    def model_weights(self, weights: Iterable[tuple[str, Tensor]]) -> Iterable[tuple[str, Tensor]]:
        """The tensors on disk under the names that the model loads them by; the same where those are on disk."""
        return weights

    def memory_forecast(
        self, entries: Iterable[TensorEntry], placement: Placement, dtype: torch.dtype, tp_size: int
    ) -> str | None:
        """In words, what finishing the load will need besides the tensors on disk, or None where it is nothing."""
        del entries, placement, dtype, tp_size
        return None

    def descriptions(self, tensor_names: Mapping[str, bool]) -> Mapping[str, object]:
        """JSON files that describe such a checkpoint beside config.json; `tensor_names` says what is quantized."""
        del tensor_names
        return {}


def _listed(dtypes: Iterable[torch.dtype]) -> str:
    return ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
