"""Launches of Triton kernels, each checked against the device's limits before it is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from backends.devices.errors import GridError
from backends.devices.limits import why_grid_is_refused
from backends.devices.placement import device_of_type


def launchable(kernel: Any, grid: Sequence[int]) -> Callable[..., None]:
    """`kernel[grid]`, which raises GridError instead of a launch that the device of its first tensor would not take."""

    def launch(*arguments: Any, **constants: Any) -> None:
        first = next(argument for argument in arguments if isinstance(argument, Tensor))
        require_grid(getattr(kernel, "__name__", None) or kernel.fn.__name__, grid, first)
        kernel[grid](*arguments, **constants)

    return launch


def require_grid(name: str, grid: Sequence[int], x: Tensor) -> None:
    """Raise GridError naming kernel, grid, product, limit and what to try, where the device of `x` would refuse it."""
    device = device_of_type(x.device.type)
    reason = why_grid_is_refused(device.limits, grid)
    if reason is None:
        return
    where = f"{x.device} ({device.note})" if device.note else str(x.device)
    raise GridError(
        f"kernel {name} on {where}: its grid is {tuple(grid)}, and {reason}.",
        f"use the device's own kernels ({', '.join(device.kernel_kinds) or 'reference'}), which launch in parts, or "
        "prefill fewer tokens at once",
    )
