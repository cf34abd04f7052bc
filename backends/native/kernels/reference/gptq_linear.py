"""Linear layers of small integers packed along the input, with zero points packed along the output, as GPTQ's are."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from backends.native.kernels.op import reference_op
from backends.native.kernels.reference.int_groups import dequantize_groups
from backends.native.kernels.reference.packing import unpack_int32


def dequantize_gptq(
    qweight: Tensor, qzeros: Tensor, scales: Tensor, g_idx: Tensor | None, bits: int, zero_shift: int
) -> Tensor:
    """float32 [N, K] from int32 qweight [K / n, N] and qzeros [groups, N / n], n = 32 / bits, and scales [groups, N].

    `g_idx` [K] is the group of each input, None where they stand in order. Zero points are stored less `zero_shift`.
    """
    codes = unpack_int32(qweight, bits, 0).t()
    zeros = (unpack_int32(qzeros, bits, 1).t() + zero_shift) % 2**bits
    return dequantize_groups(codes, zeros, scales.t(), g_idx)


@reference_op
def gptq_linear(
    x: Tensor,
    qweight: Tensor,
    qzeros: Tensor,
    scales: Tensor,
    g_idx: Tensor | None,
    bits: int,
    zero_shift: int,
    bias: Tensor | None,
) -> Tensor:
    """`x` [tokens, K] -> [tokens, N] in the dtype of `x`; weight-only."""
    return functional.linear(x, dequantize_gptq(qweight, qzeros, scales, g_idx, bits, zero_shift).to(x.dtype), bias)
