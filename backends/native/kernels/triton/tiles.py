"""How rows of a tensor are laid out in memory and shared out among the programs of a launch."""

from __future__ import annotations

from dataclasses import dataclass

import triton
from torch import Tensor

TILE_ELEMENTS = 2048


@dataclass(frozen=True)
class Tile:
    """Rows and columns one program holds, both powers of two; one row may be larger than `TILE_ELEMENTS`."""

    rows: int
    columns: int

    @property
    def num_warps(self) -> int:
        """Warps that leave each thread about 16 elements."""
        return min(16, max(4, self.rows * self.columns // 512))


def row_tile(rows: int, columns: int) -> Tile:
    """Whole rows of `columns` elements."""
    width = int(triton.next_power_of_2(columns))
    return Tile(max(1, min(TILE_ELEMENTS // width, int(triton.next_power_of_2(rows)))), width)


@dataclass(frozen=True)
class Rows:
    """The rows of `data` [..., size]: row r begins at r // inner * outer_stride + r % inner * inner_stride elements."""

    data: Tensor
    inner: int
    outer_stride: int
    inner_stride: int


def as_rows(x: Tensor) -> Rows:
    """`x` as it lies in memory where its rows are whole and it has two or three dimensions, else a copy."""
    if x.dim() == 2 and x.stride(1) == 1:
        return Rows(x, 1, x.stride(0), 0)
    if x.dim() == 3 and x.stride(2) == 1:
        return Rows(x, x.shape[1], x.stride(0), x.stride(1))
    return Rows(x.contiguous(), 1, x.shape[-1], 0)
