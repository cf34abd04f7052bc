"""Root mean square norm over the last dimension times `silu(gate)`."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from backends.native.kernels.op import reference_op
from backends.native.kernels.reference.rms_norm import normalized


@reference_op
def rms_norm_gated(x: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`x` [..., size] normalized, times `weight` [size], times `silu(gate)`, in the dtype of `x`."""
    scaled = weight * normalized(x, eps).to(x.dtype)
    return (scaled * functional.silu(gate.float())).to(x.dtype)
