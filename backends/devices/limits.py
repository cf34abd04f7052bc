"""What families of devices allow a kernel launch, and whether a grid keeps within it: data and one pure function."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class LaunchLimits:
    """`family` names them in messages; None, or an empty tuple, means that there is no such limit.

    `alignment_bytes` is the size of the blocks that copies to the cores move: a tensor that begins elsewhere is read
    slower. Nothing is refused for it.
    """

    family: str
    max_grid_product: int | None = None
    max_grid: tuple[int, ...] = ()
    allows_empty_grid: bool = True
    alignment_bytes: int = 1


UNLIMITED = LaunchLimits("unlimited")
LIMITS: Mapping[str, LaunchLimits] = {
    limits.family: limits
    for limits in (
        UNLIMITED,
        # CUDA C++ Programming Guide, "Features and Technical Specifications"; triton makes no launch of an empty grid.
        LaunchLimits("nvidia", max_grid=(2**31 - 1, 65535, 65535), alignment_bytes=16),
        # Triton on Ascend maps the product of the grid to 16 bits of blocks, and aborts for none; copies to the cores
        # move whole blocks of 32 bytes.
        LaunchLimits("ascend", max_grid_product=65535, allows_empty_grid=False, alignment_bytes=32),
    )
}


def why_grid_is_refused(limits: LaunchLimits, grid: Sequence[int]) -> str | None:
    """The reason for which a device of these limits would not take a launch of `grid`, or None if it would.

    The reason names the product, or the dimension, and the limit. It needs no device: a recorded launch can be judged
    against the limits of another family.
    """
    product = math.prod(grid)
    if product == 0:
        return None if limits.allows_empty_grid else f"the grid is empty, and {limits.family} has no empty launch"
    if limits.max_grid_product is not None and product > limits.max_grid_product:
        return f"the product {product} is above {limits.family}'s limit of {limits.max_grid_product}"
    for dimension, (size, most) in enumerate(zip(grid, limits.max_grid, strict=False)):
        if size > most:
            return f"dimension {dimension} has {size}, above {limits.family}'s limit of {most}"
    return None
