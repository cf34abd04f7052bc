"""Parameters in blocks of ggml types, whose sizes are known only when the types of all their parts have come."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from backends.devices.placement import device_of_type
from backends.native.errors import LoadError, ShapeError
from backends.native.kernels.choice import kinds_on
from backends.native.kernels.reference.ggml_types import GgmlType
from backends.native.layers.parameter import LOOK_AT, copy_checked


class LateParameter(UninitializedParameter):
    """A parameter without memory or shape until it is materialized; `stack_size` is the number of experts in it."""

    cls_to_become = nn.Parameter
    full_name: str
    weight_loader: Callable[..., None]
    stack_size: int


HOST = torch.device("cpu")


@dataclass(frozen=True)
class Staging:
    """Where blocks are kept after the load (`device`), or where they wait to be dequantized (the host).

    A device without kernels for blocks never gets them: it is given the dequantized weight.
    """

    keeps_blocks: bool
    device: torch.device
    kinds: tuple[str, ...]

    @classmethod
    def of(cls, extra: Mapping[str, Any]) -> Staging:
        """What create_weights is told; `kinds` are of kernels that run where the blocks are."""
        keeps_blocks = bool(extra["keeps_quantized_blocks"])
        host = device_of_type(HOST.type)
        kinds = extra["kernels"] if keeps_blocks else kinds_on(HOST.type, host.kernel_kinds)
        return cls(keeps_blocks, torch.get_default_device(), kinds)

    @property
    def blocks_device(self) -> torch.device:
        """Where the blocks are."""
        return self.device if self.keeps_blocks else HOST


def late_parameter(
    full_name: str, weight_loader: Callable[..., None], device: torch.device, stack_size: int = 0
) -> LateParameter:
    """An empty parameter that will hold bytes on `device`."""
    parameter = LateParameter(requires_grad=False, dtype=torch.uint8, device=device)  # type: ignore[call-arg]  # torch leaves both out
    parameter.full_name, parameter.weight_loader, parameter.stack_size = full_name, weight_loader, stack_size
    return parameter


class Blocks:
    """What one late parameter holds: a part per key, in order, `rows` [rows, row_bytes] of a type of its own.

    Parts that come before all types are known are held aside; the others are copied to their place at once.
    Where all parts are of one type the parameter is [all rows, row_bytes], otherwise the bytes one after the other;
    with `stack_size` experts, each of as many bytes, there is one of these per expert.
    """

    def __init__(self, full_name: str, rows: Mapping[Hashable, int], columns: int, stack_size: int = 0) -> None:
        self.full_name, self.rows, self.columns, self.stack_size = full_name, dict(rows), columns, stack_size
        self.types: dict[Hashable, GgmlType] = {}
        self.held: dict[Hashable, Tensor] = {}
        self.places: dict[Hashable, slice] = {}

    def set_type(self, param: nn.Parameter, key: Hashable, ggml_type: GgmlType) -> None:
        """The type of one part; with the last one, what was held aside is copied."""
        self.types[key] = ggml_type
        if len(self.types) == len(self.rows):
            for held_key in list(self.held):
                self.put(param, held_key, self.held.pop(held_key))

    def type_of(self, key: Hashable) -> GgmlType:
        """The type that came for that part; raises LoadError where its blocks came first."""
        if key not in self.types:
            raise LoadError(
                f"{self.full_name}: the blocks of {key!r} came before their type.",
                "give each qweight_type before its qweight",
            )
        return self.types[key]

    def row_bytes(self, key: Hashable) -> int:
        """Bytes of a row of this rank; raises ShapeError for a rank's part that cuts a block."""
        ggml_type = self.type_of(key)
        if self.columns % ggml_type.block_elements:
            raise ShapeError(
                f"{self.full_name} is {ggml_type.name}, stored in blocks of {ggml_type.block_elements} inputs, and a "
                f"rank holds {self.columns} inputs: no whole blocks.",
                "choose a smaller tp_size, or convert this tensor to a type with blocks of 32, such as Q8_0",
            )
        return ggml_type.row_bytes(self.columns)

    def put(self, param: nn.Parameter, key: Hashable, loaded: Tensor) -> None:
        """Copy this rank's part, uint8 [rows or fewer, row_bytes]; absent rows become zero. Raises ShapeError."""
        expected = (self.rows[key], self.row_bytes(key))
        if loaded.dtype != torch.uint8 or loaded.dim() != 2 or loaded.shape[1] != expected[1]:
            raise ShapeError(
                f"{self.full_name} expects {list(expected)} bytes of {self.type_of(key).name} here, the tensor gives "
                f"{loaded.dtype} {list(loaded.shape)}.",
                LOOK_AT,
            )
        if len(self.types) < len(self.rows):
            self.held[key] = loaded
            return
        if isinstance(param, UninitializedParameter):
            self._materialize(param)
        destination = self.part(param, key)
        padding = destination.shape[0] - loaded.shape[0]
        if padding > 0:
            destination[loaded.shape[0] :].zero_()
            destination = destination[: loaded.shape[0]]
        copy_checked(destination, loaded, self.full_name)

    def _materialize(self, param: UninitializedParameter) -> None:
        start = 0
        for key, rows in self.rows.items():
            self.places[key] = slice(start, start + rows * self.row_bytes(key))
            start = self.places[key].stop
        stack, count = (self.stack_size,) if self.stack_size else (), max(self.stack_size, 1)
        if len(set(self.types.values())) == 1:
            shape = (*stack, sum(self.rows.values()) // count, self.row_bytes(next(iter(self.rows))))
        else:
            shape = (*stack, start // count) if start % count == 0 else (start,)
        param.materialize(shape, dtype=torch.uint8)

    def part(self, param: Tensor, key: Hashable) -> Tensor:
        """The part of `key` in a materialized parameter, as a view [rows, row_bytes]."""
        return param.data.view(-1)[self.places[key]].view(self.rows[key], -1)

    def runs(self, param: Tensor, keys: Iterable[Hashable]) -> Iterator[tuple[GgmlType, Tensor]]:
        """Parts that stand side by side, of which neighbours of one type come as one view [rows, row_bytes]."""
        flat = param.data.view(-1)
        for ggml_type, group in groupby(keys, key=self.type_of):
            parts = [self.places[key] for key in group]
            yield ggml_type, flat[parts[0].start : parts[-1].stop].view(-1, ggml_type.row_bytes(self.columns))
