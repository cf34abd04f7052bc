"""Asks the system to back large tensors with huge pages: giving out memory page by page costs more than filling it."""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache

from torch import Tensor

HUGE_BYTES = 2 << 20
_ADVICE = 14
"""MADV_HUGEPAGE of Linux."""


def prefer_huge_pages(tensor: Tensor) -> Tensor:
    """`tensor`, whose memory was not written to yet, is given huge pages where whole ones fit; nothing elsewhere.

    For tensors on the CPU under Linux; a system without huge pages, or told not to use them, goes on as before.
    """
    if tensor.nbytes >= 2 * HUGE_BYTES and tensor.device.type == "cpu" and sys.platform == "linux":
        page = mmap.PAGESIZE
        start = -(-tensor.data_ptr() // page) * page
        end = (tensor.data_ptr() + tensor.nbytes) // page * page
        _system().madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _ADVICE)
    return tensor


@cache
def _system() -> ctypes.CDLL:
    return ctypes.CDLL(None)
