"""Linear layers whose weight is stored in blocks of a ggml type."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from backends.native.kernels.op import reference_op
from backends.native.kernels.reference.dequantize_gguf import dequantize_gguf


@reference_op
def gguf_linear(x: Tensor, qweight: Tensor, ggml_type: int, bias: Tensor | None) -> Tensor:
    """`x` [tokens, columns] -> [tokens, rows] in the dtype of `x`; qweight uint8 [rows, row_bytes] of one type."""
    return functional.linear(x, dequantize_gguf(qweight, ggml_type, x.dtype), bias)
