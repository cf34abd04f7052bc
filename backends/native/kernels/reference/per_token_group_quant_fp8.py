"""Activations in e4m3 with one float32 scale per token and group of neighbouring inputs."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from backends.native.kernels.op import reference_op
from backends.native.kernels.reference.fp8_linear import E4M3_MAX, to_e4m3

SMALLEST_ABSMAX = 1e-10


@reference_op
def per_token_group_quant_fp8(x: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """`x` [tokens, K] -> e4m3 [tokens, K] and float32 scales [tokens, ceil(K / group_size)], which multiply.

    The largest element of a group becomes 448; the last group may be narrower. A group of zeros has a tiny scale.
    """
    columns = x.shape[1]
    padded = functional.pad(x.float(), (0, -columns % group_size))
    groups = padded.view(x.shape[0], padded.shape[1] // group_size, group_size)
    scale = groups.abs().amax(2).clamp(min=SMALLEST_ABSMAX) / E4M3_MAX
    return to_e4m3(groups / scale.unsqueeze(2)).flatten(1)[:, :columns].contiguous(), scale


def quantize_dequantize(x: Tensor, group_size: int) -> Tensor:
    """What is left of `x` [tokens, K] after quantization, in float32."""
    quantized, scale = per_token_group_quant_fp8(x, group_size)
    return quantized.float() * scale.repeat_interleave(group_size, 1)[:, : x.shape[1]]
