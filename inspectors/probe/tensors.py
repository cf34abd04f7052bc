"""Describes tensors with the torch the host has imported; nothing here imports it."""

from __future__ import annotations

import contextlib
import math
import sys
from typing import Any

_HISTOGRAM_BINS = 32
_MAX_WINDOW = 4096
_CHUNK_ELEMENTS = 1 << 22

Shape = tuple[int, ...]


_dtype_names: dict[Any, str] = {}


def dtype_name(tensor: Any) -> str:
    """`torch.float8_e4m3fn` → `float8_e4m3fn`; "" for something that is no tensor."""
    dtype = getattr(tensor, "dtype", "")
    name = _dtype_names.get(dtype)
    if name is None:
        name = _dtype_names[dtype] = str(dtype).removeprefix("torch.")
    return name


def shape_of(tensor: Any) -> Shape:
    """The shape as plain ints; () for something that is no tensor, and for a parameter that has no shape yet."""
    try:
        return tuple(getattr(tensor, "shape", ()))
    except RuntimeError:
        return ()


def size_bytes(tensor: Any) -> int:
    """Bytes of the elements, from the shape alone; 0 for what has none."""
    try:
        return int(getattr(tensor, "nbytes", 0))
    except (RuntimeError, ValueError):
        return 0


def storage_of(tensor: Any) -> int:
    """Address of the tensor's storage, the same for all its views; 0 for what has none."""
    try:
        return int(tensor.untyped_storage().data_ptr())
    except (AttributeError, RuntimeError, NotImplementedError, ValueError):
        return 0  # ValueError: a parameter of torch's that gets its memory later


def has_memory(tensor: Any) -> bool:
    """False for what has no elements to look at: of a device without values, or without a shape yet."""
    try:
        return bool(tensor.device.type != "meta" and tensor.numel() >= 0)
    except (AttributeError, RuntimeError, ValueError):
        return False


def plain_tensors() -> Any:
    """A context in which tensor attributes are read directly, without the host's subclasses and function modes.

    A host under `torch.device(...)` pays several microseconds for each attribute otherwise. None without torch.
    """
    make = _made.get("DisableTorchFunction")
    if make is None:
        make = getattr(getattr(sys.modules.get("torch"), "_C", None), "DisableTorchFunction", None)
        if make is None:
            return None
        _made["DisableTorchFunction"] = make
    return make()


_made: dict[str, Any] = {}


def brief(tensor: Any) -> str:
    """`bfloat16[4,256]`."""
    return f"{dtype_name(tensor)}[{','.join(map(str, shape_of(tensor)))}]"


def is_tensor(value: Any) -> bool:
    """True for a torch tensor; False where torch was never imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def type_name(value: Any) -> str:
    """The own name of the value's class, or of the value where it is a class."""
    return (value if isinstance(value, type) else type(value)).__name__


def unobserved() -> contextlib.AbstractContextManager[Any]:
    """A block whose tensor operations no mode of ours or the host's sees, and autograd neither."""
    stack = contextlib.ExitStack()
    modes = sys.modules.get("torch.utils._python_dispatch")
    torch = sys.modules.get("torch")
    if modes is not None and torch is not None:
        stack.enter_context(modes._disable_current_modes())  # noqa: SLF001 - torch has no public name for it
        stack.enter_context(torch.no_grad())
    return stack


def statistics(tensor: Any) -> dict[str, float]:
    """min, mean, max, absmax, rms over the finite elements, nan_count, inf_count, zero_fraction (0 … 1).

    Taken from a float32 copy, a few million elements at a time, and summed in float64; the tensor is not changed.
    """
    torch = sys.modules["torch"]
    low, high, total, squares, finite, nans, infs, zeros = math.inf, -math.inf, 0.0, 0.0, 0, 0, 0, 0
    with unobserved():
        flat = tensor.detach().reshape(-1)
        for start in range(0, flat.numel(), _CHUNK_ELEMENTS):
            part = _as_float(flat[start : start + _CHUNK_ELEMENTS])
            zeros += part.numel() - int(torch.count_nonzero(part))
            least, most = (float(edge) for edge in torch.aminmax(part))
            if not math.isfinite(least) or not math.isfinite(most):
                nans += int(part.isnan().sum())
                infs += int(part.isinf().sum())
                part = part[torch.isfinite(part)]
                if not part.numel():
                    continue
                least, most = float(part.min()), float(part.max())
            low, high = min(low, least), max(high, most)
            total += float(part.sum(dtype=torch.float64))
            squares += float(torch.linalg.vector_norm(part, dtype=torch.float64)) ** 2
            finite += part.numel()
    count = max(1, math.prod(shape_of(tensor)))
    if not finite:
        low = high = 0.0
    return {
        "min": low, "max": high, "absmax": max(abs(low), abs(high)), "mean": total / max(1, finite),
        "rms": math.sqrt(squares / max(1, finite)), "nan_count": nans, "inf_count": infs,
        "zero_fraction": zeros / count,
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
    flat = tensor.detach().reshape(-1)
    if high <= low:
        return counts
    for start in range(0, flat.numel(), _CHUNK_ELEMENTS):
        part = _as_float(flat[start : start + _CHUNK_ELEMENTS])
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


def _as_float(tensor: Any) -> Any:
    """A float32 copy on the CPU; dtypes that cannot be cast are read as bytes."""
    torch = sys.modules["torch"]
    tensor = tensor.detach().cpu()
    try:
        return tensor.to(torch.float32)
    except (RuntimeError, TypeError):
        return tensor.contiguous().view(torch.uint8).to(torch.float32)
