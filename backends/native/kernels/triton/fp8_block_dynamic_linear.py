"""Linear layers in e4m3 blocks whose inputs are quantized per token and group in a launch before the product."""

from __future__ import annotations

from torch import Tensor

from backends.native.kernels.reference import fp8_block_dynamic_linear as reference
from backends.native.kernels.triton.block_product import float8_operands
from backends.native.kernels.triton.fp8_block_linear import launch
from backends.native.kernels.triton.matrix_tiles import is_multiplied
from backends.native.kernels.triton.per_token_group_quant_fp8 import per_token_group_quant_fp8


def fp8_block_dynamic_linear(x: Tensor, weight: Tensor, scale: Tensor, block: list[int], bias: Tensor | None) -> Tensor:
    """The reference's arguments and result, for blocks of any size.

    Both quantize to the same bits, so in float32 they agree to 1e-5 of the largest output. From compute capability 8.9
    tensor cores multiply e4m3, whose sums over one step of inputs (at most 128) some GPUs keep in about 14 bits: expect
    1e-3 there. Older GPUs multiply the same values in bfloat16.
    """
    if not is_multiplied(x):
        return reference.fp8_block_dynamic_linear(x, weight, scale, block, bias)
    quantized, input_scale = per_token_group_quant_fp8(x, block[1])
    inputs, weight, dtype = float8_operands(x, quantized, weight)
    return launch(x, inputs, input_scale, weight, scale, block, bias, dtype)
