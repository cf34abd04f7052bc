"""Linear layers in blocks of float8 elements, the weight dequantized in C."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from backends.native.kernels.compiled.fp8_blocks import dequantize_blocks
from backends.native.kernels.compiled.overload import compiled_op


@compiled_op
def fp8_block_linear(x: Tensor, weight: Tensor, scale: Tensor, block: list[int], bias: Tensor | None) -> Tensor:
    """`x` [tokens, K] -> [tokens, N] in the dtype of `x`; weight-only, bit for bit the reference."""
    return functional.linear(x, dequantize_blocks(weight, scale, block, x.dtype), bias)
