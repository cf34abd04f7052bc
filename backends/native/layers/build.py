"""What every layer is built with."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from backends.native.kernels.choice import REFERENCE
from backends.native.quantization.config import QuantizationConfig


@dataclass(frozen=True)
class Build:
    """The choices of one load that reach every layer; `kernels` are folders of `backends.native.kernels`, in order."""

    quant_config: QuantizationConfig
    params_dtype: torch.dtype
    kernels: tuple[str, ...] = (REFERENCE,)
    keeps_quantized_blocks: bool = True
