"""From what each rank held of a tensor to the whole: slices are joined, copies taken once, summands added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
How = Literal["copies", "summands", "slices"]

COPY_TOLERANCE = 1e-2
"""Relative difference up to which ranks hold copies: their sums may be added up in different orders."""


@dataclass(frozen=True)
class Gathered:
    """A whole tensor and how it came about; `how` is "copies" for a single rank too."""

    values: Array
    how: How


def are_copies(parts: Sequence[Array]) -> bool:
    """Whether all ranks hold the same, but for rounding."""
    first = parts[0].astype(np.float64)
    scale = float(np.linalg.norm(np.nan_to_num(first))) or 1.0
    for part in parts[1:]:
        if part.shape != first.shape:
            return False
        if np.array_equal(part, parts[0], equal_nan=True):
            continue
        if float(np.linalg.norm(np.nan_to_num(part.astype(np.float64) - first))) > COPY_TOLERANCE * scale:
            return False
    return True


def distinct(parts: Sequence[Array]) -> list[Array]:
    """The parts without the copies that neighbouring ranks hold, where all parts have equally many of them."""
    kept = [0, *(n for n in range(1, len(parts)) if not are_copies([parts[n - 1], parts[n]]))]
    runs = {end - start for start, end in pairwise([*kept, len(parts)])}
    return [parts[n] for n in kept] if len(runs) == 1 else list(parts)


def gathered(parts: Sequence[Array], whole: tuple[int, ...] | None) -> Gathered | None:
    """One tensor from those of the ranks, in their order; `whole` is its shape where another run shows it.

    Ranks with parts of the whole shape hold copies, or summands of it. Where one dimension is smaller the parts are
    slices of it, and where they overlap (KV heads copied to neighbouring ranks) each stretch is taken once.
    Without `whole`, parts that differ are taken for slices of the last dimension. None where nothing fits.
    """
    first = parts[0]
    if len(parts) == 1:
        return Gathered(first, "copies")
    if any(part.shape != first.shape for part in parts):
        return None
    if whole is None or first.shape == whole:
        if are_copies(parts):
            return Gathered(first, "copies")
        if whole is not None:
            return Gathered(np.sum([part.astype(np.float64) for part in parts], axis=0), "summands")
        return Gathered(np.concatenate(parts, axis=-1), "slices") if first.ndim else None
    return _joined(parts, whole)


def _joined(parts: Sequence[Array], whole: tuple[int, ...]) -> Gathered | None:
    shape = parts[0].shape
    if len(shape) != len(whole):
        return None
    differing = [dim for dim, (own, all_) in enumerate(zip(shape, whole, strict=True)) if own != all_]
    if len(differing) != 1:
        return None
    (dim,) = differing
    held, wanted = shape[dim] * len(parts), whole[dim]
    if wanted == 0 or held % wanted:
        return None
    copies = held // wanted
    if len(parts) % copies:
        return None
    return Gathered(np.concatenate(parts[::copies], axis=dim), "slices")


def split_slots(values: Array, sizes: Sequence[int]) -> list[Array] | None:
    """The slots of a fused output along its last dimension; None where the sizes are not those of the output."""
    if not values.ndim or sum(sizes) != values.shape[-1]:
        return None
    edges = np.cumsum([0, *sizes])
    return [values[..., a:b] for a, b in pairwise(edges)]


def whole_shape(
    left: tuple[int, ...], left_ranks: int, right: tuple[int, ...], right_ranks: int
) -> tuple[int, ...] | None:
    """The shape of a tensor of which ranks of two runs hold `left` and `right` each; None where none fits both.

    A dimension that both hold alike is whole; of one that differs, each rank has a slice.
    """
    if len(left) != len(right):
        return None
    sizes = [a if a == b else common_size(a, left_ranks, b, right_ranks) for a, b in zip(left, right, strict=True)]
    return None if None in sizes else tuple(size for size in sizes if size is not None)


def common_size(left: int, left_ranks: int, right: int, right_ranks: int) -> int | None:
    """The size of a dimension of which ranks of two runs hold `left` and `right` each: the largest that fits both.

    A run of N ranks with n each holds n * N / c, where c ranks hold the same; None where no size fits both.
    """
    return max(_sizes(left, left_ranks) & _sizes(right, right_ranks), default=None)


def _sizes(own: int, ranks: int) -> set[int]:
    return {own * ranks // copies for copies in range(1, ranks + 1) if ranks % copies == 0}
