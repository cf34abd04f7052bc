"""Linear layers of 4-bit groups packed along the output, as AWQ's kernels read them."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from backends.native.kernels.op import reference_op
from backends.native.kernels.reference.int_groups import dequantize_groups
from backends.native.kernels.reference.packing import unpack_int32

BITS = 4
# Even outputs first, so that one mask separates two halves of a word.
OUTPUT_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def dequantize_awq(qweight: Tensor, qzeros: Tensor, scales: Tensor) -> Tensor:
    """float32 [N, K] from int32 qweight [K, N / 8] and qzeros [groups, N / 8], and scales [groups, N]."""
    codes, zeros = (unpack_int32(packed, BITS, 1, OUTPUT_ORDER).t() for packed in (qweight, qzeros))
    return dequantize_groups(codes, zeros, scales.t(), None)


@reference_op
def awq_linear(x: Tensor, qweight: Tensor, qzeros: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    """`x` [tokens, K] -> [tokens, N] in the dtype of `x`; weight-only."""
    return functional.linear(x, dequantize_awq(qweight, qzeros, scales).to(x.dtype), bias)
