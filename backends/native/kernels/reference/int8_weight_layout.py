"""The layout of an INT8 weight that a kernel asks for after the load; plain torch asks for none."""

from __future__ import annotations

from torch import Tensor

from backends.native.kernels.op import reference_op


@reference_op
def int8_weight_layout(weight: Tensor) -> Tensor:
    """int8 [N, K] or [experts, N, K], as it is: a copy, since an operator must not return its argument."""
    return weight.clone()
