"""Root mean square norm over the last dimension; a program takes whole rows."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from backends.native.kernels.launch import launchable
from backends.native.kernels.triton.tiles import as_rows, row_tile


@triton.jit  # type: ignore[untyped-decorator]
def rms_norm_kernel(
    output: tl.tensor,
    x: tl.tensor,
    weight: tl.tensor,
    rows: tl.tensor,
    inner: tl.tensor,
    outer_stride: tl.tensor,
    inner_stride: tl.tensor,
    size: tl.tensor,
    eps: tl.tensor,
    is_zero_centered: tl.constexpr,
    block_rows: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Everything is computed in float32 and rounded once."""
    row = tl.program_id(0).to(tl.int64) * block_rows + tl.arange(0, block_rows)
    column = tl.arange(0, block)
    inside = (row[:, None] < rows) & (column[None, :] < size)
    source = x + (row // inner * outer_stride + row % inner * inner_stride)[:, None] + column[None, :]
    wide = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    gain = tl.load(weight + column, mask=column < size, other=0.0).to(tl.float32)
    if is_zero_centered:
        gain += 1.0
    scale = tl.rsqrt(tl.sum(wide * wide, axis=1) / size + eps)
    normalized = wide * scale[:, None] * gain[None, :]
    tl.store(output + row[:, None] * size + column[None, :], normalized.to(output.dtype.element_ty), mask=inside)


def rms_norm(x: Tensor, weight: Tensor, eps: float, is_zero_centered: bool) -> Tensor:
    """The reference's arguments and result."""
    output = torch.empty_like(x, memory_format=torch.contiguous_format)
    if not x.numel():
        return output
    size = x.shape[-1]
    rows, tile, source = x.numel() // size, row_tile(x.numel() // size, size), as_rows(x)
    launchable(rms_norm_kernel, (triton.cdiv(rows, tile.rows),))(
        output,
        source.data,
        weight.contiguous(),
        rows,
        source.inner,
        source.outer_stride,
        source.inner_stride,
        size,
        eps,
        is_zero_centered=is_zero_centered,
        block_rows=tile.rows,
        block=tile.columns,
        num_warps=tile.num_warps,
    )
    return output
