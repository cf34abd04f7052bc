"""Runs a block of host code under a torch dispatch mode that shows every operation to a watcher and changes none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

_modes: dict[str, Any] = {}


Run = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
"""Calls an operator (torch's OpOverload) once with these arguments and returns what it returns."""


def operations_mode(run: Run) -> Any:
    """A dispatch mode of the host's torch (to be entered and exited) whose operations go through `run`."""
    made = _modes.get("class")
    if made is None:
        made = _modes["class"] = _make_class()
    return made(run)


def _make_class() -> Any:
    base: Any = sys.modules["torch.utils._python_dispatch"].TorchDispatchMode

    class OperationsMode(base):  # type: ignore[misc]
        """Shows operations below autograd; inside `run` no mode is active, so an operation's own parts are not seen."""

        def __init__(self, run: Run) -> None:
            super().__init__()
            self._run = run

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return self._run(func, args, kwargs or {})

    return OperationsMode


def is_torch_here() -> bool:
    """True when the host has imported torch with its dispatch modes."""
    return "torch.utils._python_dispatch" in sys.modules


def schema_name(func: Any) -> str:
    """`aten::copy_`, `native::rms_norm`."""
    return str(func._schema.name)  # noqa: SLF001 - the public way to an operator's schema


_writes: dict[Any, tuple[tuple[int, str], ...]] = {}


def written_arguments(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments which the operator's schema says it changes, lists flattened."""
    places = _writes.get(func)
    if places is None:
        arguments = func._schema.arguments  # noqa: SLF001 - see schema_name
        places = _writes[func] = tuple(
            (place, a.name) for place, a in enumerate(arguments) if a.alias_info is not None and a.alias_info.is_write
        )
    found: list[Any] = []
    for place, name in places:
        value = kwargs[name] if name in kwargs else args[place] if place < len(args) else None
        found.extend(value if isinstance(value, (list, tuple)) else [value])
    return [value for value in found if value is not None]
