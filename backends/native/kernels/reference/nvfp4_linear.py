"""Linear layers in float4_e2m1 with one e4m3 scale per 16 elements and one float32 scale over all of them."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from backends.native.kernels.op import reference_op
from backends.native.kernels.reference.fp8_linear import to_e4m3
from backends.native.kernels.reference.packing import E2M1_MAX, e2m1_codes, e2m1_floats, unpack_nibbles

GROUP = 16
SMALLEST = 1e-30


def nvfp4_groups(x: Tensor, global_scale: Tensor) -> tuple[Tensor, Tensor]:
    """`x` [rows, K] -> float4 codes [rows, K] and e4m3 scales [rows, K / 16], of which `global_scale` is the unit."""
    groups = x.float().view(x.shape[0], -1, GROUP)
    scale = to_e4m3(groups.abs().amax(2) / E2M1_MAX / global_scale)
    codes = e2m1_codes(groups / (scale.float() * global_scale).clamp(min=SMALLEST).unsqueeze(2))
    return codes.flatten(1), scale


def nvfp4_floats(codes: Tensor, scale: Tensor, global_scale: Tensor) -> Tensor:
    """The inverse, in float32."""
    return e2m1_floats(codes) * (scale.float() * global_scale).repeat_interleave(GROUP, dim=1)


@reference_op
def nvfp4_linear(
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    global_scale: Tensor,
    input_scale: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """`x` [tokens, K] -> [tokens, N] in the dtype of `x`; weight uint8 [N, K / 2], its scales e4m3 [N, K / 16].

    `x` is quantized in the same way with `input_scale` over all of it, or not at all where that is None.
    """
    dequantized = nvfp4_floats(unpack_nibbles(weight), weight_scale, global_scale)
    if input_scale is None:
        return functional.linear(x, dequantized.to(x.dtype), bias)
    product = functional.linear(nvfp4_floats(*nvfp4_groups(x, input_scale), input_scale), dequantized)
    return (product if bias is None else product + bias).to(x.dtype)
