"""Linear layers whose weight is stored in blocks of float8 elements with one scale each; weight-only."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from backends.native.kernels.op import reference_op


def dequantize_blocks(weight: Tensor, scale: Tensor, block: tuple[int, int] | list[int]) -> Tensor:
    """`weight` [N, K] times its blocks' `scale` [ceil(N / block_n), ceil(K / block_k)], in float32."""
    rows, columns = weight.shape
    expanded = scale.repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)[:, :columns]
    return weight.float() * expanded


@reference_op
def fp8_block_linear(x: Tensor, weight: Tensor, scale: Tensor, block: list[int], bias: Tensor | None) -> Tensor:
    """`x` [tokens, K] -> [tokens, N] in the dtype of `x`; weight-only: `x` is not quantized, the weight dequantized."""
    return functional.linear(x, dequantize_blocks(weight, scale, block).to(x.dtype), bias)
