"""Linear layers whose weight is stored in blocks of a ggml type, dequantized in C."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from backends.native.kernels.compiled.dequantize_gguf import dequantize_gguf
from backends.native.kernels.compiled.overload import compiled_op
from backends.native.kernels.reference.gguf_linear import gguf_linear as reference


@compiled_op
def gguf_linear(x: Tensor, qweight: Tensor, ggml_type: int, bias: Tensor | None) -> Tensor:
    """`x` [tokens, columns] -> [tokens, rows] in the dtype of `x`; qweight uint8 [rows, row_bytes] of one type."""
    if not qweight.is_cpu:
        return reference(x, qweight, ggml_type, bias)
    return functional.linear(x, dequantize_gguf(qweight, ggml_type, x.dtype), bias)
