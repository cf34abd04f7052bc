"""No hardware and no values: tensors are shapes, so a load shows every name, split and decision at no cost."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from backends.devices.contract import Memory
from backends.devices.limits import UNLIMITED, LaunchLimits


@dataclass(frozen=True)
class Null:
    """What a tensor holds is lost; its shape and dtype are kept, as torch's meta tensors do."""

    torch_type: str = "meta"
    note: str = "shapes only"
    has_values: bool = False
    keeps_quantized_blocks: bool = True
    kernel_kinds: tuple[str, ...] = ()
    limits: LaunchLimits = UNLIMITED
    missing_dtypes: frozenset[torch.dtype] = frozenset()
    integer_input_dtypes: frozenset[torch.dtype] | None = None
    triton_backends: tuple[str, ...] = ()

    def multiplies_float8(self, index: int) -> bool:
        """It has no such units."""
        del index
        return False

    def why_not(self) -> str | None:
        """It can always be used."""
        return None

    def count(self) -> int:
        """One."""
        return 1

    def start(self) -> None:
        """Nothing to start."""

    def memory(self, index: int) -> Memory:
        """None is needed, and none is there."""
        del index
        return Memory(0, 0, 0)

    def synchronize(self, index: int) -> None:
        """Nothing is computed."""
        del index


DEVICE = Null()
