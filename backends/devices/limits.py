"""What families of devices allow a kernel launch, and whether a launch keeps within it: data and pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class LaunchLimits:
    """`family` names them in messages; None, or an empty tuple, means that there is no such limit.

    `alignment_bytes` is the size of the blocks that copies to the cores move: what begins elsewhere is read slower, by
    a padded copy. No launch is refused for it. `note` says what the numbers hold for.
    """

    family: str
    max_grid_product: int | None = None
    max_grid: tuple[int, ...] = ()
    allows_empty_grid: bool = True
    alignment_bytes: int = 1
    note: str = ""


_ASCEND = LaunchLimits("ascend", max_grid_product=65535, allows_empty_grid=False, alignment_bytes=32)
"""Triton on Ascend maps the product of the grid to 16 bits of blocks, and aborts for none.

Sources: CANN 8.5, SetBlockDim ("value range is [1, 65535]"); triton-ascend, docs/en/migration_guide/
migrate_from_gpu.md ("coreDim cannot exceed UINT16_MAX (65535)", vector operators access memory in 32 bytes) and
architecture_difference.md: its versions with auto-blockify, and TRITON_ALL_BLOCKS_PARALLEL=1, fold larger grids.
"""

UNLIMITED = LaunchLimits("unlimited")
LIMITS: Mapping[str, LaunchLimits] = {
    limits.family: limits
    for limits in (
        UNLIMITED,
        # CUDA C++ Programming Guide, "Features and Technical Specifications"; triton makes no launch of an empty grid.
        LaunchLimits("nvidia", max_grid=(2**31 - 1, 65535, 65535), alignment_bytes=16),
        _ASCEND,
        replace(_ASCEND, family="ascend-910b", note="Atlas A2, without TRITON_ALL_BLOCKS_PARALLEL"),
        replace(_ASCEND, family="ascend-910c", note="Atlas A3, without TRITON_ALL_BLOCKS_PARALLEL"),
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


@dataclass(frozen=True)
class Misaligned:
    """A tensor argument that begins, or whose rows begin, between two blocks: `bytes_` from a whole one, or apart."""

    argument: int
    part: str
    bytes_: int


def misaligned(
    limits: LaunchLimits, alignments: Sequence[int], strides_bytes: Sequence[Sequence[int]]
) -> Iterator[Misaligned]:
    """The tensor arguments that a device of these limits cannot read in whole blocks.

    `alignments` are the powers of two that divide the place of each tensor's first element, in bytes, as far as they
    are known (-1: not); `strides_bytes` the steps of each tensor's dimensions that are longer than one. Rows are
    judged where they are longer than a block and what is in them lies together.
    """
    block = limits.alignment_bytes
    for argument, (start, steps) in enumerate(zip(alignments, strides_bytes, strict=True)):
        if 0 < start < block:
            yield Misaligned(argument, "tensor", start)
            continue
        rows = steps[:-1] if steps and steps[-1] < block else ()
        crooked = [step for step in rows if step > block and step % block]
        if crooked:
            yield Misaligned(argument, "rows", crooked[0])
