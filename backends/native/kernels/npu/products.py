"""What the NPU's INT8 kernels share: torch_npu's operators, called as its documentation for Atlas A2 and A3 says."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from backends.native.errors import KernelError

FRACTAL_NZ = 29
HALF = (torch.float16, torch.bfloat16)
_npu: Any = torch.ops.npu


def require_half(x: Tensor, op: str) -> None:
    """Raise KernelError for an input that the quantizing operators do not take."""
    if x.dtype not in HALF:
        raise KernelError(
            f"{op} on {x.device}: the input is {x.dtype}, expected float16 or bfloat16.", "pass --dtype bfloat16"
        )


def quantize_tokens(x: Tensor) -> tuple[Tensor, Tensor]:
    """`x` [tokens, K] in half precision -> int8 and float32 scales [tokens]."""
    quantized, scale = _npu.npu_dynamic_quant(x)
    return quantized, scale


def quantize_by_scale(x: Tensor, scale: Tensor, zero_point: Tensor | None) -> Tensor:
    """`x / scale + zero_point` as int8, for a scale and a zero point of one element."""
    columns = x.shape[-1]
    scales = scale.float().reshape(1).repeat(columns)
    zeros = None if zero_point is None else zero_point.to(torch.int32).reshape(1).repeat(columns)
    quantized: Tensor = _npu.npu_quantize(x, scales, zeros, torch.qint8, -1, True)
    return quantized


def int8_product(
    quantized: Tensor,
    weight: Tensor,
    scale: Tensor,
    dtype: torch.dtype,
    token_scale: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """int8 [tokens, K] times `weight` int8 [N, K] -> [tokens, N] in `dtype`, half precision.

    `scale` float32 [N] or [1], `token_scale` float32 [tokens]; an int32 `bias` [N] is added before scaling, a float one
    after it. Without token scales a float16 output has its scales cut to 19 bits by the hardware.
    """
    if token_scale is None and dtype == torch.float16:
        scale = _npu.npu_trans_quant_param(scale.contiguous())
    is_last = bias is not None and bias.dtype != torch.int32 and token_scale is None and dtype == torch.float16
    product: Tensor = _npu.npu_quant_matmul(
        quantized,
        weight.t(),
        scale,
        pertoken_scale=token_scale,
        bias=None if is_last else bias,
        output_dtype=dtype,
    )
    return product + bias if is_last and bias is not None else product


def weight_only_product(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """`x` [tokens, K] in half precision times `weight` int8 [N, K] with `scale` of 1 or N elements."""
    wide = None if bias is None else bias.float() if x.dtype == torch.bfloat16 else bias
    product: Tensor = _npu.npu_weight_quant_batchmatmul(x, weight.t(), scale.to(x.dtype).flatten(), bias=wide)
    return product


def grouped_product(
    quantized: Tensor, token_scale: Tensor, weight: Tensor, scale: Tensor, ends: Tensor, dtype: torch.dtype
) -> Tensor:
    """Rows int8 [m, K], grouped by expert, times `weight` int8 [experts, N, K] -> [m, N] in `dtype`.

    `ends` int64 [experts] is the row after each expert's last. The operator takes the scales [experts, N] in bfloat16
    for a bfloat16 output, which rounds them.
    """
    scales = scale if dtype == torch.float16 else scale.to(dtype)
    product: Tensor = _npu.npu_grouped_matmul(
        [quantized],
        [weight.transpose(1, 2)],
        scale=[scales],
        per_token_scale=[token_scale],
        group_list=ends,
        split_item=2,
        group_type=0,
        group_list_type=0,
        output_dtype=dtype,
    )[0]
    return product


def laid_out(weight: Tensor) -> Tensor:
    """`weight` [..., N, K] as the transposed view of [..., K, N] in FRACTAL_NZ: seen unchanged, read in blocks."""
    blocked: Tensor = _npu.npu_format_cast(weight.transpose(-1, -2).contiguous(), FRACTAL_NZ)
    return blocked.transpose(-1, -2)


def swiglu(x: Tensor) -> Tensor:
    """`silu(gate) * up` of [..., gate then up]."""
    activated: Tensor = _npu.npu_swiglu(x)
    return activated


def top_k_of_softmax(logits: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """float32 logits [tokens, experts] -> float32 weights and int32 ids, both [tokens, top_k]."""
    weights, ids, _ = _npu.npu_moe_gating_top_k(logits, top_k)
    return weights, ids
