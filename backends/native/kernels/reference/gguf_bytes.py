"""Fields of ggml blocks: halves, words, nibbles and bits out of uint8 [blocks, bytes]."""

from __future__ import annotations

import torch
from torch import Tensor


def words(blocks: Tensor, start: int, end: int, dtype: torch.dtype) -> Tensor:
    """Bytes `start` to `end` of each block as little-endian numbers of `dtype`."""
    # A slice of one block is contiguous at an odd offset, where torch cannot view it as wider numbers.
    return blocks[:, start:end].clone(memory_format=torch.contiguous_format).view(dtype)


def half(blocks: Tensor, start: int) -> Tensor:
    """The float16 at byte `start` as float32 [blocks, 1]."""
    return words(blocks, start, start + 2, torch.float16).float()


def shifted(x: Tensor, shifts: tuple[int, ...], mask: int) -> Tensor:
    """Fields of each element of `x` [..., k] -> [..., len(shifts), k]: all first fields, then all second ones."""
    amounts = torch.tensor(shifts, dtype=x.dtype, device=x.device)
    return (x.unsqueeze(-2) >> amounts.unsqueeze(-1)) & mask


def fields(x: Tensor, shifts: tuple[int, ...], mask: int) -> Tensor:
    """Fields of each element of `x` [..., k] -> [..., k, len(shifts)]: all fields of the first element first."""
    return (x.unsqueeze(-1) >> torch.tensor(shifts, dtype=x.dtype, device=x.device)) & mask


def bits(x: Tensor) -> Tensor:
    """uint8 [..., k] -> [..., 8 k], the lowest bit of the first byte first."""
    return fields(x, tuple(range(8)), 1).flatten(-2)
