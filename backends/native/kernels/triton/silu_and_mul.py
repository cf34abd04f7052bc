"""The activation between a fused gate/up projection and the down projection."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from backends.native.errors import ShapeError
from backends.native.kernels.launch import launchable
from backends.native.kernels.triton.tiles import TILE_ELEMENTS, Tile, as_rows, row_tile


@triton.jit  # type: ignore[untyped-decorator]
def silu_and_mul_kernel(
    output: tl.tensor,
    x: tl.tensor,
    rows: tl.tensor,
    inner: tl.tensor,
    outer_stride: tl.tensor,
    inner_stride: tl.tensor,
    size: tl.tensor,
    block_rows: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Computed in float32 and rounded once; the reference also rounds before it multiplies."""
    row = tl.program_id(0).to(tl.int64) * block_rows + tl.arange(0, block_rows)
    column = tl.program_id(1) * block + tl.arange(0, block)
    inside = (row[:, None] < rows) & (column[None, :] < size)
    source = x + (row // inner * outer_stride + row % inner * inner_stride)[:, None] + column[None, :]
    gate = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(source + size, mask=inside, other=0.0).to(tl.float32)
    product = gate * tl.sigmoid(gate) * up
    tl.store(output + row[:, None] * size + column[None, :], product.to(output.dtype.element_ty), mask=inside)


def silu_and_mul(x: Tensor) -> Tensor:
    """The reference's argument and result; raises ShapeError where the last dimension is odd."""
    if x.shape[-1] % 2:
        raise ShapeError(
            f"silu_and_mul: the last dimension is {x.shape[-1]}, expected a gate and an up half of one size.",
            "compare intermediate_size in config.json with gate_proj and up_proj on disk",
        )
    size = x.shape[-1] // 2
    output = x.new_empty(*x.shape[:-1], size)
    if not output.numel():
        return output
    rows, source = output.numel() // size, as_rows(x)
    whole = row_tile(rows, size)
    tile = Tile(whole.rows, min(whole.columns, TILE_ELEMENTS))
    launchable(silu_and_mul_kernel, (triton.cdiv(rows, tile.rows), triton.cdiv(size, tile.columns)))(
        output,
        source.data,
        rows,
        source.inner,
        source.outer_stride,
        source.inner_stride,
        size,
        block_rows=tile.rows,
        block=tile.columns,
        num_warps=tile.num_warps,
    )
    return output
