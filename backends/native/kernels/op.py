"""Registers a reference kernel as a torch operator, so that its calls can be seen by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import torch

P = ParamSpec("P")
R = TypeVar("R")

# Not torch.library.custom_op: its first call imports the compiler stack, which costs more than a small model's run.
_library: Any = torch.library.Library("native", "FRAGMENT")  # type: ignore[no-untyped-call]


def reference_op(function: Callable[P, R]) -> Callable[P, R]:
    """Make `function` the operator `native::<its name>`; it must return fresh tensors and change no argument."""
    name = function.__name__
    _library.define(name + torch.library.infer_schema(function, mutates_args=()))
    _library.impl(name, function, "CompositeExplicitAutograd")
    return cast("Callable[P, R]", getattr(torch.ops.native, name).default)
