"""What an architecture says about each tensor on disk."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype before quantization; `mean` and `std` are of the values a synthesized checkpoint gets."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    quantizable: bool = False
    mean: float = 0.0
    std: float = 0.05
