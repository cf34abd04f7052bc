"""Looks at what goes into and comes out of every module of a model, for as long as somebody wants to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from inspectors.probe.tensors import is_tensor

if TYPE_CHECKING:
    from inspectors.probe.agent import Probe
    from inspectors.probe.inspector import Inspector

Sees = Callable[[str, str, Any], None]
"""Is given a module's name, "input" or "output", and the value."""


class ModuleHooks:
    """Hooks on all modules below a model, on behalf of an inspector; they return nothing, so they change nothing."""

    def __init__(self, probe: Probe, inspector: Inspector, model: Any, sees: Sees) -> None:
        self._probe, self._inspector, self._sees = probe, inspector, sees
        self._hooks: list[Any] = []
        for name, module in model.named_modules():
            if name:  # the forward of the model itself has begun: its hooks were asked for already
                self._hooks.append(module.register_forward_pre_hook(self._before(name), with_kwargs=True))
                self._hooks.append(module.register_forward_hook(self._after(name)))

    def remove(self) -> None:
        """Take them off."""
        for hook in self._hooks:
            hook.remove()

    def _before(self, name: str) -> Any:
        def hook(_module: Any, args: Any, kwargs: Any) -> None:
            self._tell(name, "input", (*args, *kwargs.values()))

        return hook

    def _after(self, name: str) -> Any:
        def hook(_module: Any, _args: Any, output: Any) -> None:
            self._tell(name, "output", output)

        return hook

    def _tell(self, name: str, role: str, value: Any) -> None:
        if self._probe.has(self._inspector):
            with self._probe.guarded(self._inspector):
                self._sees(name, role, value)


def tensors_of(value: Any) -> Iterator[Any]:
    """The tensors of an output or of arguments, in order; containers are looked into."""
    if is_tensor(value):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from tensors_of(one)
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from tensors_of(one)


def version_of(tensor: Any) -> int:
    """How often the tensor was changed in place; -1 where torch does not count (inference mode)."""
    return -1 if tensor.is_inference() else int(tensor._version)  # noqa: SLF001 - torch has no public name for it
