"""Which implementation of an operation a load uses."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any

from backends.native.errors import KernelError

KINDS = ("reference", "triton")


def kernel(op: str, kind: str) -> Callable[..., Any]:
    """The function `op` of `kernels/<kind>/<op>.py`, or the reference where that kind has no such file."""
    name = f"{__package__}.{kind}.{op}"
    if importlib.util.find_spec(name) is None:
        name = f"{__package__}.reference.{op}"
    chosen: Callable[..., Any] = getattr(importlib.import_module(name), op)
    return chosen


def require_runnable(kind: str, device: str) -> None:
    """Raise KernelError where kernels of `kind` cannot run on `device`: triton compiles for accelerators only."""
    if kind != "triton":
        return
    if importlib.util.find_spec("triton") is None:
        raise KernelError("--kernels triton: triton is not installed.", "install triton, or use --kernels reference")
    if device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        raise KernelError(
            "--kernels triton: triton does not compile for cpu, and its interpreter is off.",
            "set TRITON_INTERPRET=1, or use --kernels reference",
        )
