"""Tensors of a GGUF file under the model's names, with what a converter changed undone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from backends.native.checkpoint.gguf_layout import GgmlLayout
from backends.native.checkpoint.gguf_names import fused_with, model_name, modules_of
from backends.native.errors import CheckpointError
from backends.native.kernels.reference.dequantize_gguf import dequantize_gguf
from backends.native.kernels.reference.ggml_types import BY_NAME, UNQUANTIZED, GgmlType

Named = tuple[str, Tensor]
NOT_LINEAR = ("norm.weight", "layernorm.weight", "conv1d.weight", "A_log", "dt_bias", ".bias")


@dataclass(frozen=True)
class GgufSizes:
    """The numbers of the model that say which rows and columns belong together."""

    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    linear_num_key_heads: int = 0
    linear_num_value_heads: int = 0
    linear_key_head_dim: int = 0
    linear_value_head_dim: int = 0
    num_experts: int = 0

    @property
    def values_per_key(self) -> int:
        """Value heads that share a key head."""
        return self.linear_num_value_heads // max(self.linear_num_key_heads, 1)


@dataclass(frozen=True)
class GgufWeights:
    """What a file holds by name and type, and how the model wants it; `types` has the names in the file."""

    types: Mapping[str, GgmlType]
    layout: GgmlLayout
    sizes: GgufSizes

    def quantized_modules(self) -> frozenset[str]:
        """Modules of the model that are given in blocks: of such a type themselves, or fused with one that is."""
        types = self._module_types()
        in_blocks = {module for module, ggml_type in types.items() if ggml_type.number not in UNQUANTIZED}
        return frozenset(m for m in types if in_blocks & set(fused_with(m, types)))

    def _module_types(self) -> dict[str, GgmlType]:
        return {
            module: ggml_type
            for name, ggml_type in self.types.items()
            if (known := model_name(name, self.sizes.num_hidden_layers)) and not known.endswith(NOT_LINEAR)
            for module in modules_of(known)
        }

    def modules_of(self, name: str) -> tuple[str, ...]:
        """The model's modules that the tensor called `name` in the file belongs to."""
        known = model_name(name, self.sizes.num_hidden_layers)
        return () if known is None else modules_of(known)

    def are_columns_tiled(self, module: str) -> bool:
        """Whether the file has the module's columns in its own order of value heads; blocks are given in that order."""
        return module.endswith(".linear_attn.out_proj") and self._are_values_out_of_order

    @property
    def _are_values_out_of_order(self) -> bool:
        return self.layout.are_value_heads_tiled and self.sizes.values_per_key > 1

    def translated(self, weights: Iterable[Named]) -> Iterator[Named]:
        """(name in the file, tensor) -> (name in the model, tensor).

        What is in blocks comes as `qweight_type` and `qweight`. All types come before the first tensor, so that a
        parameter of several parts can be made before its first part is copied.
        """
        quantized = self.quantized_modules()
        yield from self._types(quantized)
        for name, tensor in weights:
            known = model_name(name, self.sizes.num_hidden_layers)
            if known is None:
                yield name, tensor
                continue
            ggml_type = self.types[name]
            for full_name, part in self._parts(known, tensor, ggml_type):
                module = full_name.removesuffix(".weight")
                if _without_expert(module) in quantized and module != full_name:
                    yield f"{module}.qweight", _as_bytes(part)
                else:
                    yield full_name, _as_numbers(part, ggml_type)

    def _types(self, quantized: Collection[str]) -> Iterator[Named]:
        for name, ggml_type in self.types.items():
            known = model_name(name, self.sizes.num_hidden_layers)
            for module in modules_of(known) if known is not None and known.endswith(".weight") else ():
                if module in quantized:
                    for part in _with_experts(module, self.sizes.num_experts):
                        number = torch.tensor([ggml_type.number], dtype=torch.uint8, device="cpu")
                        yield f"{part}.qweight_type", number

    def _parts(self, name: str, tensor: Tensor, ggml_type: GgmlType) -> Iterator[Named]:
        if name.endswith(".weight") and ".mlp.experts." in name:
            yield from _of_experts(name, tensor)
        elif name.endswith((".in_proj_qkvz.weight", ".in_proj_ba.weight")):
            yield from self._taken_apart(name, tensor)
        elif self.are_columns_tiled(name.removesuffix(".weight")) and ggml_type.number in UNQUANTIZED:
            yield (
                name,
                rearranged(tensor, self._untiled(self.sizes.linear_value_head_dim), 1),
            )
        elif name.endswith("shared_expert_gate.weight"):
            yield name, tensor.reshape(1, -1)
        else:
            # Last, so that what a loader is given is what was seen to be rearranged.
            yield name, self._with_rows_in_order(name, self._undone(name)(tensor))

    def _undone(self, name: str) -> Callable[[Tensor], Tensor]:
        """The inverse of what the converter did to the values."""
        if name.endswith(".A_log"):
            return lambda stored: (-stored.float()).log()
        if name.endswith(".conv1d.weight"):
            return lambda stored: stored.unsqueeze(1)
        is_shifted = name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight")
        if is_shifted and self.layout.are_norms_shifted:
            return lambda stored: stored.float() - 1
        return lambda stored: stored

    def _with_rows_in_order(self, name: str, tensor: Tensor) -> Tensor:
        order = self._row_order(name)
        if order is None:
            return tensor
        if tensor.shape[0] != order.numel():
            raise CheckpointError(
                f"{name} has {tensor.shape[0]} rows, expected {order.numel()} by the heads in the metadata.",
                "compare the metadata with the tensors, or convert the model again",
            )
        return rearranged(tensor, order)

    def _row_order(self, name: str) -> Tensor | None:
        """For each row of the model the row in the file; None where they are the same."""
        sizes, proj = self.sizes, name.rpartition(".")[0].rpartition(".")[2]
        if self.layout.are_heads_interleaved and proj in ("q_proj", "k_proj"):
            heads = sizes.num_attention_heads if proj == "q_proj" else sizes.num_key_value_heads
            return _rows(heads, sizes.head_dim // 2, 2).transpose(1, 2).reshape(-1)
        if not self._are_values_out_of_order or ".linear_attn." not in name:
            return None
        if name.endswith((".A_log", ".dt_bias")) or proj in ("in_proj_a", "in_proj_b"):
            return self._untiled(1)
        values = self._untiled(sizes.linear_value_head_dim)
        if proj == "in_proj_z":
            return values
        if proj in ("in_proj_qkv", "conv1d"):
            first = 2 * sizes.linear_num_key_heads * sizes.linear_key_head_dim
            return torch.cat((torch.arange(first, device="cpu"), first + values))
        return None

    def _untiled(self, size: int) -> Tensor:
        """Places of `size` elements per value head: the file has the first of every key head before the second ones."""
        return _rows(self.sizes.values_per_key, self.sizes.linear_num_key_heads, size).transpose(0, 1).reshape(-1)

    def _taken_apart(self, name: str, tensor: Tensor) -> Iterator[Named]:
        """Tensors packed in one group per key head, as the projections they hold one after the other."""
        sizes, module = self.sizes, name.removesuffix(".weight")
        groups = _rows(sizes.linear_num_key_heads, tensor.shape[0] // sizes.linear_num_key_heads)
        keys, values = sizes.linear_key_head_dim, sizes.values_per_key * sizes.linear_value_head_dim
        if module.endswith("qkvz"):
            query, key, value, z = (part.reshape(-1) for part in torch.split(groups, [keys, keys, values, values], 1))
            yield f"{module.removesuffix('z')}.weight", rearranged(tensor, torch.cat((query, key, value)))
            yield f"{module.removesuffix('qkvz')}z.weight", rearranged(tensor, z)
        else:
            b, a = (part.reshape(-1) for part in torch.split(groups, sizes.values_per_key, 1))
            yield f"{module.removesuffix('a')}.weight", rearranged(tensor, b)
            yield f"{module.removesuffix('ba')}a.weight", rearranged(tensor, a)


def rearranged(tensor: Tensor, order: Tensor, dim: int = 0) -> Tensor:
    """The rows, or columns, that `order` names of `tensor`, one after the other in a copy; seen by this name."""
    return tensor.index_select(dim, order)


def _rows(*sizes: int) -> Tensor:
    """Places in a row-major array of these sizes; on the CPU whatever device a load is for."""
    return torch.arange(torch.Size(sizes).numel(), device="cpu").view(sizes)


def _of_experts(name: str, tensor: Tensor) -> Iterator[Named]:
    """Each expert's part of a tensor [experts, rows, columns], as views; gate rows stand before up rows."""
    outer, proj = name.removesuffix(".weight").rsplit(".", 1)
    projections = ("gate_proj", "up_proj") if proj == "gate_up_proj" else (proj,)
    if tensor.dim() != 3 or tensor.shape[1] % len(projections):
        raise CheckpointError(
            f"{name} is {list(tensor.shape)}, expected [experts, rows, columns] of all experts.",
            "convert the model again with its experts in one tensor",
        )
    for expert, weight in enumerate(tensor):
        for projection, part in zip(projections, weight.chunk(len(projections)), strict=True):
            yield f"{outer}.{expert}.{projection}.weight", part


def _without_expert(module: str) -> str:
    """`experts.3.gate_proj` as `experts.gate_proj`."""
    outer, dot, rest = module.partition(".experts.")
    return f"{outer}{dot}{rest.partition('.')[2]}" if dot else module


def _with_experts(module: str, experts: int) -> Iterator[str]:
    """`experts.gate_proj` once for each expert; any other module as it is."""
    outer, dot, proj = module.partition(".experts.")
    if dot:
        yield from (f"{outer}{dot}{expert}.{proj}" for expert in range(experts))
    else:
        yield module


def _as_bytes(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.uint8 else tensor.contiguous().view(torch.uint8)


def _as_numbers(tensor: Tensor, ggml_type: GgmlType) -> Tensor:
    if tensor.dtype == torch.uint8 and ggml_type.number not in UNQUANTIZED:
        return dequantize_gguf(tensor, ggml_type.number, torch.float32)
    return tensor


def types_of(names: Mapping[str, str]) -> dict[str, GgmlType]:
    """Types by the names of tensors, from those by the names of types."""
    return {name: BY_NAME[type_name] for name, type_name in names.items()}
