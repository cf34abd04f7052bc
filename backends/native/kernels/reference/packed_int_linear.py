"""Linear layers whose integers are packed into int32 along the input, scales [outputs, groups]."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from backends.native.kernels.op import reference_op
from backends.native.kernels.reference.int_groups import dequantize_groups
from backends.native.kernels.reference.packing import unpack_int32


def dequantize_packed(
    weight_packed: Tensor, weight_scale: Tensor, zero_point: Tensor | None, g_idx: Tensor | None, bits: int
) -> Tensor:
    """float32 [N, K] from int32 [N, K / n]; zero points int32 [N / n, groups], n = 32 / bits; None is the middle."""
    zeros = 2 ** (bits - 1) if zero_point is None else unpack_int32(zero_point, bits, 0)
    return dequantize_groups(unpack_int32(weight_packed, bits, 1), zeros, weight_scale, g_idx)


@reference_op
def packed_int_linear(
    x: Tensor,
    weight_packed: Tensor,
    weight_scale: Tensor,
    zero_point: Tensor | None,
    g_idx: Tensor | None,
    bits: int,
    bias: Tensor | None,
) -> Tensor:
    """`x` [tokens, K] -> [tokens, N] in the dtype of `x`; weight-only."""
    weight = dequantize_packed(weight_packed, weight_scale, zero_point, g_idx, bits)
    return functional.linear(x, weight.to(x.dtype), bias)
