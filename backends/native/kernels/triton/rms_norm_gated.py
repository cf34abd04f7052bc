"""Root mean square norm over the last dimension times `silu(gate)`; a program takes whole rows."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from backends.native.kernels.launch import launchable
from backends.native.kernels.triton.tiles import as_rows, row_tile


@triton.jit  # type: ignore[untyped-decorator]
def rms_norm_gated_kernel(
    output: tl.tensor,
    x: tl.tensor,
    gate: tl.tensor,
    weight: tl.tensor,
    rows: tl.tensor,
    inner: tl.tensor,
    outer_stride: tl.tensor,
    inner_stride: tl.tensor,
    gate_inner: tl.tensor,
    gate_outer_stride: tl.tensor,
    gate_inner_stride: tl.tensor,
    size: tl.tensor,
    eps: tl.tensor,
    block_rows: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Everything is computed in float32 and rounded once; the reference also rounds before it applies the gate."""
    row = tl.program_id(0).to(tl.int64) * block_rows + tl.arange(0, block_rows)
    column = tl.arange(0, block)
    inside = (row[:, None] < rows) & (column[None, :] < size)
    source = x + (row // inner * outer_stride + row % inner * inner_stride)[:, None] + column[None, :]
    wide = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    gate_row = row // gate_inner * gate_outer_stride + row % gate_inner * gate_inner_stride
    opening = tl.load(gate + gate_row[:, None] + column[None, :], mask=inside, other=0.0).to(tl.float32)
    gain = tl.load(weight + column, mask=column < size, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, axis=1) / size + eps)
    gated = wide * scale[:, None] * gain[None, :] * opening * tl.sigmoid(opening)
    tl.store(output + row[:, None] * size + column[None, :], gated.to(output.dtype.element_ty), mask=inside)


def rms_norm_gated(x: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The reference's arguments and result."""
    output = torch.empty_like(x, memory_format=torch.contiguous_format)
    if not x.numel():
        return output
    size = x.shape[-1]
    rows, tile = x.numel() // size, row_tile(x.numel() // size, size)
    source, gates = as_rows(x), as_rows(gate.expand_as(x))
    launchable(rms_norm_gated_kernel, (triton.cdiv(rows, tile.rows),))(
        output,
        source.data,
        gates.data,
        weight.contiguous(),
        rows,
        source.inner,
        source.outer_stride,
        source.inner_stride,
        gates.inner,
        gates.outer_stride,
        gates.inner_stride,
        size,
        eps,
        block_rows=tile.rows,
        block=tile.columns,
        num_warps=tile.num_warps,
    )
    return output
