"""What every layer is built with."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from backends.native.quantization.config import QuantizationConfig


@dataclass(frozen=True)
class Build:
    """The choices of one load that reach every layer; `kernels` is a folder of `backends.native.kernels`."""

    quant_config: QuantizationConfig
    params_dtype: torch.dtype
    kernels: str = "reference"
