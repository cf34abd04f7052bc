"""The layout in which the NPU's matrix units read an INT8 weight: transposed, in FRACTAL_NZ."""

from __future__ import annotations

from torch import Tensor

from backends.native.kernels.npu.products import laid_out


def int8_weight_layout(weight: Tensor) -> Tensor:
    """int8 [N, K] or [experts, N, K] -> the same as seen from outside; no part of it may be taken any more."""
    return laid_out(weight)
