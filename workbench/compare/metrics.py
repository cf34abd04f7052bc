"""What two arrays of one shape have in common: cosine, SQNR, largest and relative error, in float64, chunk by chunk."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

CHUNK_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class Measure:
    """How near a candidate is to its reference. Sums run over the `compared` elements: those finite in both.

    `noise` is |candidate - reference|² / |reference|² of the whole; `typical_noise` the median of the same over rows
    (tokens, output channels), which one row gone wrong does not move. Both are 0 for equal arrays and infinite where
    the reference is zero and the candidate is not. `cosine` is None where one side is all zeros.
    `odd` counts elements that are NaN or infinite on one side, or differ in which of these they are.
    """

    elements: int
    compared: int
    noise: float
    typical_noise: float
    cosine: float | None
    max_abs_error: float
    reference_absmax: float
    odd: int = 0

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise ratio, 10 log10(|reference|² / |difference|²); infinite for equal arrays."""
        return decibels(self.noise)

    @property
    def relative_error(self) -> float:
        """|candidate - reference| / |reference|, of Euclidean norms."""
        return math.sqrt(self.noise)

    @property
    def is_exact(self) -> bool:
        """True when every element is the same, NaN and infinity included."""
        return self.noise == 0 and self.odd == 0


FIELDS = tuple(one.name for one in fields(Measure))


def decibels(noise: float) -> float:
    """A noise power relative to its signal as an SQNR in dB: 0.01 is 20 dB, 0 is infinite."""
    if noise <= 0:
        return math.inf
    return -math.inf if math.isinf(noise) else -10 * math.log10(noise)


def measure(reference: Array, candidate: Array) -> Measure:
    """Compare two arrays of one shape, any real dtype; raises ValueError for different shapes.

    Values up to 1e150 are squared without overflow.
    """
    if reference.shape != candidate.shape:
        raise ValueError(f"shapes {reference.shape} and {candidate.shape} differ")
    rows, columns = _matrix(reference.shape)
    left, right = reference.reshape(rows, columns), candidate.reshape(rows, columns)
    signals, noises = np.zeros(rows), np.zeros(rows)
    total = _Sums()
    step = max(1, CHUNK_ELEMENTS // max(1, columns))
    for start in range(0, rows, step):
        part = slice(start, start + step)
        signals[part], noises[part] = total.add(left[part], right[part])
    return Measure(
        elements=rows * columns,
        compared=total.compared,
        noise=ratio(total.noise, total.signal),
        typical_noise=_typical(noises, signals),
        cosine=total.cosine,
        max_abs_error=total.max_abs_error,
        reference_absmax=total.reference_absmax,
        odd=total.odd,
    )


def ratio(noise: float, signal: float) -> float:
    """Noise power over signal power: 0 when there is no noise, infinite when there is no signal."""
    if noise == 0:
        return 0.0
    return noise / signal if signal > 0 else math.inf


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns: the first dimension, and all others."""
    return (1, math.prod(shape)) if len(shape) < 2 else (shape[0], math.prod(shape[1:]))


def _typical(noises: Array, signals: Array) -> float:
    told = [ratio(float(n), float(s)) for n, s in zip(noises, signals, strict=True) if n > 0 or s > 0]
    return float(np.median(told)) if told else 0.0


class _Sums:
    """Running sums over chunks."""

    def __init__(self) -> None:
        self.compared = self.odd = 0
        self.signal = self.other = self.noise = self.product = 0.0
        self.max_abs_error = self.reference_absmax = 0.0

    def add(self, reference: Array, candidate: Array) -> tuple[Array, Array]:
        """Take in some rows; returns the power of the reference and of the difference in each."""
        left, right = reference.astype(np.float64), candidate.astype(np.float64)
        is_finite = np.isfinite(left) & np.isfinite(right)
        if not is_finite.all():
            self.odd += int((~is_finite & ~((left == right) | (np.isnan(left) & np.isnan(right)))).sum())
            left, right = np.where(is_finite, left, 0.0), np.where(is_finite, right, 0.0)
        self.compared += int(is_finite.sum())
        if not left.size:
            return np.zeros(len(left)), np.zeros(len(left))
        difference = right - left
        signals, noises = (left * left).sum(axis=1), (difference * difference).sum(axis=1)
        self.signal, self.noise = self.signal + float(signals.sum()), self.noise + float(noises.sum())
        self.other, self.product = self.other + float((right * right).sum()), self.product + float((left * right).sum())
        self.max_abs_error = max(self.max_abs_error, float(np.abs(difference).max()))
        self.reference_absmax = max(self.reference_absmax, float(np.abs(left).max()))
        return signals, noises

    @property
    def cosine(self) -> float | None:
        """Cosine similarity, None where one side is all zeros; rounding may not leave [-1, 1]."""
        if self.signal <= 0 or self.other <= 0:
            return None
        return max(-1.0, min(1.0, self.product / math.sqrt(self.signal) / math.sqrt(self.other)))


def noise_map(reference: Array, candidate: Array, rows: int, columns: int) -> list[list[float]]:
    """SQNR in dB of each cell of a grid laid over [first dimension, all others], at most `rows` × `columns` cells.

    Noise is set against the mean power of the whole reference, so that a quiet cell does not look bad by itself.
    """
    height, width = _matrix(reference.shape)
    left = np.nan_to_num(reference.reshape(height, width).astype(np.float64), posinf=0, neginf=0)
    right = np.nan_to_num(candidate.reshape(height, width).astype(np.float64), posinf=0, neginf=0)
    power = float((left * left).mean()) if left.size else 0.0
    squares = (right - left) ** 2
    down, across = _edges(height, rows), _edges(width, columns)
    if not squares.size:
        return []
    sums = np.add.reduceat(np.add.reduceat(squares, down[:-1], axis=0), across[:-1], axis=1)
    means = sums / np.outer(np.diff(down), np.diff(across))
    return [[decibels(ratio(mean, power)) for mean in line] for line in means.tolist()]


def _edges(length: int, cells: int) -> list[int]:
    count = min(length, cells)
    return [round(n * length / count) for n in range(count + 1)] if count else [0]
