"""The numbers in a tensor: statistics of all of them, a histogram, a window; for whoever looks at values."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from inspectors.probe.tensors import dtype_name, is_tensor, shape_of, type_name, unobserved

NOT_APPLICABLE = -1.0
"""A fraction that the dtype gives no meaning: integers have no subnormals, bytes and words may hold packed numbers."""

_HISTOGRAM_BINS = 32
_MAX_WINDOW = 4096
_CHUNK_ELEMENTS = 1 << 18
"""What stays in a core's cache while it is read several times: five times as fast as chunks of millions."""


@dataclass(frozen=True)
class Numbers:
    """Statistics of a tensor. `minimum` to `rms` are of the finite elements, 0 without any; fractions are of all.

    Subnormal is below the dtype's smallest normal and not zero, saturated at its largest finite value; signed integers
    of one and two bytes saturate at both ends. Either is NOT_APPLICABLE where the dtype does not say.
    """

    minimum: float = 0.0
    maximum: float = 0.0
    mean: float = 0.0
    rms: float = 0.0
    nan_count: int = 0
    inf_count: int = 0
    zero_fraction: float = 0.0
    subnormal_fraction: float = NOT_APPLICABLE
    saturated_fraction: float = NOT_APPLICABLE

    @property
    def absmax(self) -> float:
        """The largest magnitude."""
        return max(abs(self.minimum), abs(self.maximum))


@dataclass(frozen=True)
class _Range:
    """What a dtype calls its ends; None where that has no meaning for it."""

    smallest_normal: float | None
    lowest: float | None
    highest: float | None


def summarize(tensor: Any) -> Numbers:
    """The statistics of a tensor that has memory. It is read once, a part that fits a cache at a time, on the CPU.

    Sums are made in float64, of one-byte dtypes exactly: there the 256 codes are counted.
    """
    torch = sys.modules["torch"]
    with unobserved():
        flat, ends = _flat(tensor), _range(tensor.dtype)
        count = int(flat.numel())
        if count and flat.element_size() == 1:
            return _of_codes(torch, flat, ends)
        total = _Total()
        for part in _parts(flat):
            total.add(torch, part, ends)
    return total.numbers(max(1, count), ends)


def _flat(tensor: Any) -> Any:
    """All elements in one dimension, in any order, without a copy where they lie together."""
    tensor = tensor.detach()
    strides = tensor.stride()
    dense = tensor.permute(sorted(range(tensor.dim()), key=lambda dim: -strides[dim])) if tensor.dim() > 1 else tensor
    return dense.reshape(-1)


def _range(dtype: Any) -> _Range:
    torch = sys.modules["torch"]
    if dtype.is_floating_point:
        try:
            said = torch.finfo(dtype)
            return _Range(float(said.smallest_normal), -float(said.max), float(said.max))
        except (TypeError, NotImplementedError):  # float4 in pairs
            return _Range(None, None, None)
    if dtype in {torch.int8, torch.int16}:
        said = torch.iinfo(dtype)
        return _Range(None, float(said.min), float(said.max))
    return _Range(None, None, None)


def _of_codes(torch: Any, flat: Any, ends: _Range) -> Numbers:
    """Of one-byte elements: how often each of the 256 codes occurs says everything."""
    counts = torch.zeros(256, dtype=torch.int64, device="cpu")
    for start in range(0, flat.numel(), _CHUNK_ELEMENTS):
        codes = flat[start : start + _CHUNK_ELEMENTS].cpu().view(torch.uint8)
        counts += torch.bincount(codes, minlength=256)
    table = torch.arange(256, dtype=torch.uint8, device="cpu")
    try:
        table = table.view(flat.dtype).to(torch.float64)
    except (RuntimeError, TypeError, NotImplementedError):
        table = table.to(torch.float64)  # numbers packed in bytes
    pairs = [(value, n) for value, n in zip(table.tolist(), counts.tolist(), strict=True) if n]
    finite = [(value, n) for value, n in pairs if math.isfinite(value)]
    whole, held = sum(n for _, n in pairs), max(1, sum(n for _, n in finite))
    return Numbers(
        minimum=min((value for value, _ in finite), default=0.0),
        maximum=max((value for value, _ in finite), default=0.0),
        mean=math.fsum(value * n for value, n in finite) / held,
        rms=math.sqrt(math.fsum(value * value * n for value, n in finite) / held),
        nan_count=sum(n for value, n in pairs if math.isnan(value)),
        inf_count=sum(n for value, n in pairs if math.isinf(value)),
        zero_fraction=sum(n for value, n in finite if value == 0) / whole,
        subnormal_fraction=NOT_APPLICABLE
        if ends.smallest_normal is None
        else sum(n for value, n in finite if 0 < abs(value) < ends.smallest_normal) / whole,
        saturated_fraction=NOT_APPLICABLE
        if ends.lowest is None
        else sum(n for value, n in finite if value in {ends.lowest, ends.highest}) / whole,
    )


class _Total:
    """What the parts seen so far come to."""

    def __init__(self) -> None:
        self.low, self.high, self.sum, self.squares = math.inf, -math.inf, 0.0, 0.0
        self.finite = self.nans = self.infs = self.zeros = self.subnormal = self.saturated = 0

    def add(self, torch: Any, part: Any, ends: _Range) -> None:
        """Take a part in: a CPU tensor of float32 or float64."""
        self.zeros += part.numel() - int(torch.count_nonzero(part))
        least, most = (float(edge) for edge in torch.aminmax(part))
        if not math.isfinite(least) or not math.isfinite(most):
            self.nans += int(part.isnan().sum())
            self.infs += int(part.isinf().sum())
            part = part[torch.isfinite(part)]
            if not part.numel():
                return
            least, most = (float(edge) for edge in torch.aminmax(part))
        self.low, self.high = min(self.low, least), max(self.high, most)
        self.finite += part.numel()
        self.sum += float(part.sum(dtype=torch.float64))
        self.squares += float(torch.linalg.vector_norm(part, dtype=torch.float64)) ** 2
        if ends.smallest_normal is not None:
            near = part.abs() < ends.smallest_normal
            self.subnormal += int(torch.count_nonzero(near)) - (part.numel() - int(torch.count_nonzero(part)))
        if ends.lowest is not None and (least <= ends.lowest or most >= (ends.highest or 0.0)):
            self.saturated += int(torch.count_nonzero((part <= ends.lowest) | (part >= ends.highest)))

    def numbers(self, count: int, ends: _Range) -> Numbers:
        """The statistics of `count` elements."""
        held = max(1, self.finite)
        return Numbers(
            minimum=self.low if self.finite else 0.0,
            maximum=self.high if self.finite else 0.0,
            mean=self.sum / held,
            rms=math.sqrt(self.squares / held),
            nan_count=self.nans,
            inf_count=self.infs,
            zero_fraction=self.zeros / count,
            subnormal_fraction=NOT_APPLICABLE if ends.smallest_normal is None else self.subnormal / count,
            saturated_fraction=NOT_APPLICABLE if ends.lowest is None else self.saturated / count,
        )


def statistics(tensor: Any) -> dict[str, float]:
    """What a person who inspects a tensor is shown of its numbers; see `summarize`."""
    said = summarize(tensor)
    return {
        "min": said.minimum, "max": said.maximum, "absmax": said.absmax, "mean": said.mean, "rms": said.rms,
        "nan_count": said.nan_count, "inf_count": said.inf_count, "zero_fraction": said.zero_fraction,
    }  # fmt: skip


def inspect_tensor(tensor: Any, row: int, column: int, rows: int, columns: int) -> dict[str, Any]:
    """dtype, shape, statistics, a histogram of 32 bins from min to max, and a window of values.

    The window is of the matrix [all but the last dimension, last dimension]; not-a-numbers and infinities are texts.
    """
    if not is_tensor(tensor):
        return {"dtype": type_name(tensor), "shape": [], "statistics": {}, "histogram": [], "window": []}
    with unobserved():
        return {
            "dtype": dtype_name(tensor),
            "shape": list(shape_of(tensor)),
            "statistics": (said := statistics(tensor)),
            "histogram": _histogram(tensor, said["min"], said["max"]),
            "window": _window(tensor, row, column, rows, columns),
        }


def _histogram(tensor: Any, low: float, high: float) -> list[int]:
    torch = sys.modules["torch"]
    counts = [0] * _HISTOGRAM_BINS
    if high <= low:
        return counts
    for chunk in _parts(_flat(tensor)):
        part = chunk.float()
        part = part[torch.isfinite(part)]
        found = torch.histc(part, bins=_HISTOGRAM_BINS, min=low, max=high).tolist()
        counts = [have + int(more) for have, more in zip(counts, found, strict=True)]
    return counts


def _window(tensor: Any, row: int, column: int, rows: int, columns: int) -> list[list[float | str]]:
    shape = shape_of(tensor) or (1,)
    if not math.prod(shape):
        return []
    rows, columns = max(0, min(rows, _MAX_WINDOW)), max(0, min(columns, _MAX_WINDOW))
    row, column = max(0, row), max(0, column)
    matrix = tensor.detach().reshape(-1, shape[-1])
    part = _as_float(matrix[row : row + rows, column : column + columns])
    return [[value if math.isfinite(value) else str(value) for value in line] for line in part.tolist()]


def _parts(flat: Any) -> Iterator[Any]:
    """The elements a cache full at a time, as floats on the CPU."""
    for start in range(0, flat.numel(), _CHUNK_ELEMENTS):
        yield _as_float(flat[start : start + _CHUNK_ELEMENTS])


def _as_float(tensor: Any) -> Any:
    """A copy on the CPU in float32, or float64 for what float32 cannot hold; what cannot be cast is read as bytes."""
    torch = sys.modules["torch"]
    tensor = tensor.detach().cpu()
    try:
        return tensor.to(
            torch.float64 if tensor.element_size() > 2 and tensor.dtype != torch.float32 else torch.float32
        )
    except (RuntimeError, TypeError):
        return tensor.contiguous().view(torch.uint8).to(torch.float32)
