"""Root mean square norms, replicated on every rank."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backends.native.kernels.choice import kernel
from backends.native.layers.build import Build
from backends.native.layers.parameter import ModelParameter, default_weight_loader


class RMSNorm(nn.Module):
    """Norm over the last dimension; a zero-centered weight is stored as its difference from one."""

    op = "rms_norm"

    def __init__(self, size: int, eps: float, *, build: Build, prefix: str, is_zero_centered: bool = False) -> None:
        super().__init__()
        self.kernel = kernel(self.op, build.kernels, prefix)
        self.eps, self.is_zero_centered = eps, is_zero_centered
        self.weight = ModelParameter(
            torch.empty(size, dtype=build.params_dtype),
            full_name=f"{prefix}.weight",
            weight_loader=default_weight_loader,
        )

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] -> [..., size] in the dtype of `x`."""
        normalized: Tensor = self.kernel(x, self.weight, self.eps, self.is_zero_centered)
        return normalized


class RMSNormGated(RMSNorm):
    """Norm, then multiplication by `silu(gate)`."""

    op = "rms_norm_gated"

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:  # type: ignore[override]  # the gate is what makes it gated
        """[..., size] twice -> [..., size] in the dtype of `x`."""
        gated: Tensor = self.kernel(x, gate, self.weight, self.eps)
        return gated
