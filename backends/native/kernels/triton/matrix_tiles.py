"""What all kernels that multiply by a quantized weight share: which tile a program computes, and in which dtype.

Arguments of kernels are annotated with names of `tl`: the compiler looks annotations up, and knows no other module.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

DOT_DTYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
SMALLEST_TILE = 16
LARGEST_ROWS = 64


@triton.jit  # type: ignore[untyped-decorator]
def rows_and_columns(tile: tl.tensor, m: tl.tensor, tile_m: tl.constexpr, tile_n: tl.constexpr) -> tl.tensor:
    """int64 rows and columns of the output tile of that number; neighbours share their columns of the weight."""
    tiles_m = tl.cdiv(m, tile_m)
    rows = (tile % tiles_m).to(tl.int64) * tile_m + tl.arange(0, tile_m)
    columns = (tile // tiles_m).to(tl.int64) * tile_n + tl.arange(0, tile_n)
    return rows, columns


@triton.jit  # type: ignore[untyped-decorator]
def store_tile(
    out: tl.tensor,
    bias: tl.tensor,
    total: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    m: tl.tensor,
    n: tl.tensor,
) -> None:
    """Write float32 `total`, plus `bias` unless it is None, as rows of `n` elements, rounded once."""
    if bias is not None:
        total += tl.load(bias + columns, mask=columns < n, other=0.0).to(tl.float32)[None, :]
    is_inside = (rows < m)[:, None] & (columns < n)[None, :]
    tl.store(out + rows[:, None] * n + columns[None, :], total.to(out.dtype.element_ty), mask=is_inside)


def dot_dtype(x: Tensor) -> Any:
    """The dtype in which tiles are multiplied: that of `x`, but float32 in the interpreter.

    There a product of bfloat16 tiles is wrong without a word.
    """
    return tl.float32 if x.is_cpu else DOT_DTYPES[x.dtype]


def is_multiplied(x: Tensor) -> bool:
    """Whether the kernels multiply inputs of that dtype."""
    return x.dtype in DOT_DTYPES


def output_buffer(x: Tensor, *shape: int) -> Tensor:
    """What a kernel writes and the caller casts to the dtype of `x`: the interpreter does not round to bfloat16."""
    return x.new_empty(shape, dtype=torch.float32 if x.is_cpu else x.dtype)


def with_whole_rows(x: Tensor) -> Tensor:
    """`x`, or a copy of it where neighbours in the last dimension are not neighbours in memory."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def rows_of_tile(rows: int) -> int:
    """A power of two from 16, the least that `tl.dot` takes, to 64."""
    return min(LARGEST_ROWS, max(SMALLEST_TILE, int(triton.next_power_of_2(rows))))


def tile_count(rows: int, columns: int, tile_m: int, tile_n: int) -> int:
    """Programs that cover [rows, columns], as one dimension of a grid: the others of CUDA end at 65535."""
    return -(-rows // tile_m) * -(-columns // tile_n)
