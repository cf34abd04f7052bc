"""Registers a C kernel as an overload of the reference's operator, so that its calls are seen under the same name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import torch

P = ParamSpec("P")
R = TypeVar("R")
OVERLOAD = "compiled"

_library: Any = torch.library.Library("native", "FRAGMENT")  # type: ignore[no-untyped-call]


def compiled_op(function: Callable[P, R]) -> Callable[P, R]:
    """Make `function` the operator `native::<its name>.compiled`; it returns fresh tensors and changes no argument."""
    name = f"{function.__name__}.{OVERLOAD}"
    _library.define(name + torch.library.infer_schema(function, mutates_args=()))
    _library.impl(name, function, "CompositeExplicitAutograd")
    packet: Any = getattr(torch.ops.native, function.__name__)
    return cast("Callable[P, R]", getattr(packet, OVERLOAD))
