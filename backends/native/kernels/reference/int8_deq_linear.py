"""INT8 linear layers whose sums are corrected by an integer bias and scaled once, by output channel."""

from __future__ import annotations

from torch import Tensor

from backends.native.kernels.op import reference_op
from backends.native.kernels.reference.int8_linear import integer_product, quantize_int8


@reference_op
def int8_deq_linear(
    x: Tensor, weight: Tensor, input_scale: Tensor, input_offset: Tensor, quant_bias: Tensor, deq_scale: Tensor
) -> Tensor:
    """`x` [tokens, K] -> [tokens, N] in the dtype of `x`; `quant_bias` int32 and `deq_scale` float [N].

    `quant_bias` holds what the input's offset adds to the sums, and the layer's own bias.
    """
    total = integer_product(quantize_int8(x, input_scale, input_offset), weight) + quant_bias
    return (total.double() * deq_scale.double()).to(x.dtype)
