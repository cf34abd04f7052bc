"""Linear layers in e4m3 blocks whose inputs are quantized too, per token and group, while they run."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from backends.native.kernels.op import reference_op
from backends.native.kernels.reference.fp8_block_linear import dequantize_blocks
from backends.native.kernels.reference.per_token_group_quant_fp8 import quantize_dequantize


@reference_op
def fp8_block_dynamic_linear(x: Tensor, weight: Tensor, scale: Tensor, block: list[int], bias: Tensor | None) -> Tensor:
    """`x` [tokens, K] -> [tokens, N] in the dtype of `x`, accumulated in float32.

    `x` is quantized by `per_token_group_quant_fp8` in groups as wide as the weight's blocks.
    """
    product = functional.linear(quantize_dequantize(x, block[1]), dequantize_blocks(weight, scale, block))
    return (product if bias is None else product + bias).to(x.dtype)
