"""Hands rows of tensors to C functions: addresses, dtypes, and a share of the rows for each of torch's threads."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from backends.native.huge_pages import prefer_huge_pages

DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1}
"""What the C functions write; other dtypes are cast from float32."""
SHARE_BYTES = 4 << 20
Int64 = ctypes.c_int64


def code_of(dtype: torch.dtype) -> ctypes.c_int32:
    """How the C functions call a dtype they write."""
    return ctypes.c_int32(DTYPE_CODES[dtype])


def new_output(like: Tensor, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """An uninitialised result on the device of `like`, in what is written where `dtype` is asked for."""
    return prefer_huge_pages(like.new_empty(rows, columns, dtype=dtype if dtype in DTYPE_CODES else torch.float32))


def address(tensor: Tensor, row: int = 0) -> ctypes.c_void_p:
    """Where a row of the first dimension begins."""
    return ctypes.c_void_p(tensor.data_ptr() + (row * tensor.stride(0) * tensor.element_size() if row else 0))


def rows_in_memory(tensor: Tensor) -> Tensor:
    """The tensor [rows, bytes] itself where each row is one run of memory, else a copy of which that is true."""
    is_run = tensor.stride(-1) == 1 or tensor.shape[-1] <= 1
    return tensor if is_run and tensor.stride(0) >= tensor.shape[-1] else tensor.contiguous()


def in_shares(rows: int, output: Tensor, run: Callable[[int, int], None], *, unit: int = 1) -> None:
    """Call `run(start, count)` for all rows, in as many threads as torch uses where `output` is worth it.

    Shares begin at multiples of `unit` rows.
    """
    threads = min(torch.get_num_threads(), output.nbytes // SHARE_BYTES + 1, max(rows, 1))
    share = -(-rows // threads // unit) * unit if threads > 1 else rows
    starts = range(0, rows, max(share, 1))
    others = [threading.Thread(target=run, args=(start, min(share, rows - start))) for start in starts[1:]]
    for thread in others:
        thread.start()
    if rows:
        run(0, min(share, rows))
    for thread in others:
        thread.join()
