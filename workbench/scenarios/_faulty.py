"""Gives a part of an engine the fault that a scenario plants, in the host's own process."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any


def give(owner: object, name: str, make: Callable[[Any], object]) -> None:
    """Replace the attribute `name` of a module or class by `make(what it is now)`, which goes by the same name."""
    repaired = getattr(owner, name)
    faulty = make(repaired)
    if isinstance(faulty, FunctionType):
        faulty.__qualname__ = repaired.__qualname__
    setattr(owner, name, faulty)
