"""Which implementation of an operation a load uses."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

KINDS = ("reference", "triton")


def kernel(op: str, kind: str) -> Callable[..., Any]:
    """The function `op` of `kernels/<kind>/<op>.py`, or the reference where that kind has no such file."""
    name = f"{__package__}.{kind}.{op}"
    if importlib.util.find_spec(name) is None:
        name = f"{__package__}.reference.{op}"
    chosen: Callable[..., Any] = getattr(importlib.import_module(name), op)
    return chosen
