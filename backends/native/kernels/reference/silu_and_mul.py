"""The activation between a fused gate/up projection and the down projection."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from backends.native.kernels.op import reference_op


@reference_op
def silu_and_mul(x: Tensor) -> Tensor:
    """`silu(gate) * up` of `x` [..., gate then up]."""
    gate, up = x.chunk(2, dim=-1)
    return functional.silu(gate) * up
