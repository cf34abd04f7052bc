"""Takes packed projections apart in as many launches as the device's limit asks for, or in plain torch."""

from __future__ import annotations

import importlib
import os
from functools import cache
from typing import Any

from torch import Tensor

from backends.devices.placement import device_of_type
from backends.native.kernels import triton
from backends.native.kernels.reference import fused_qkvzba_split_reshape_cat as reference

OP = "fused_qkvzba_split_reshape_cat"


@cache
def _splitting_kernel(device: str, interpreter: str | None) -> Any:
    """The triton kernel's module, or None where this triton has no compiler for the device."""
    del interpreter  # it changes the answer, so it is a part of what is cached
    return None if triton.why_not(device) else importlib.import_module(f"{triton.__name__}.{OP}")


def fused_qkvzba_split_reshape_cat(
    mixed_qkvz: Tensor, mixed_ba: Tensor, num_k_heads: int, num_v_heads: int, head_k_dim: int, head_v_dim: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The reference's arguments and results, for any number of tokens: no grid grows beyond the limit."""
    sizes = (num_k_heads, num_v_heads, head_k_dim, head_v_dim)
    kernel = _splitting_kernel(str(mixed_qkvz.device), os.environ.get(triton.INTERPRETER))
    if kernel is None:
        plain: tuple[Tensor, Tensor, Tensor, Tensor]
        plain = reference.fused_qkvzba_split_reshape_cat(mixed_qkvz, mixed_ba, *sizes)
        return plain
    parts: tuple[Tensor, Tensor, Tensor, Tensor] = kernel.empty_parts(mixed_qkvz, mixed_ba, *sizes)
    tokens = mixed_qkvz.shape[0]
    limit = device_of_type(mixed_qkvz.device.type).limits.max_grid_product or tokens * num_k_heads
    step = max(1, limit // num_k_heads)
    for start in range(0, tokens, step):
        rows = slice(start, start + step)
        kernel.split_into(tuple(part[rows] for part in parts), mixed_qkvz[rows], mixed_ba[rows], *sizes)
    return parts
