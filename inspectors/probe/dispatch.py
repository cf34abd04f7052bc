"""Runs a block of host code under a torch dispatch mode that shows every operation to a watcher and changes none."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

_modes: dict[str, Any] = {}


Run = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
"""Calls an operator (torch's OpOverload) once with these arguments and returns what it returns."""


class WatchedOperations:
    """A dispatch mode of the host's torch, entered and left in two different functions of an inspector.

    torch keeps process-wide flags for "a mode is active" and restores them in the order of a stack; ranks that run as
    threads by turns leave their modes in another order, so the flags are put back when the last of ours is left.
    """

    _active = 0
    _flags: tuple[tuple[str, Any], ...] = ()
    _lock = threading.Lock()

    def __init__(self, run: Run) -> None:
        self._mode = _mode_class("all", _make_class)(run)

    def enter(self) -> None:
        """Watch the operations of this thread from here on."""
        cls, modes = WatchedOperations, sys.modules["torch.utils._python_dispatch"]
        with cls._lock:
            if not cls._active:
                cls._flags = tuple((name, getattr(modes, name)) for name in _FLAGS if hasattr(modes, name))
            cls._active += 1
        self._mode.__enter__()

    def leave(self) -> None:
        """Stop watching; the mode must be this thread's innermost."""
        cls, modes = WatchedOperations, sys.modules["torch.utils._python_dispatch"]
        self._mode.__exit__(None, None, None)
        with cls._lock:
            cls._active -= 1
            if not cls._active:
                for name, value in cls._flags:
                    setattr(modes, name, value)


_FLAGS = (
    "_is_in_torch_dispatch_mode",
    "_is_in_non_infra_torch_dispatch_mode",
    "_is_in_any_mode_without_ignore_compile_internals",
)


def _mode_class(name: str, make: Callable[[], Any]) -> Any:
    """A class that needs the host's torch to be made, made once."""
    made = _modes.get(name)
    if made is None:
        made = _modes[name] = make()
    return made


def _make_class() -> Any:
    base: Any = sys.modules["torch.utils._python_dispatch"].TorchDispatchMode

    class OperationsMode(base):  # type: ignore[misc]
        """Shows operations below autograd; inside `run` no mode is active, so an operation's own parts are not seen."""

        supports_higher_order_operators = True

        def __init__(self, run: Run) -> None:
            super().__init__()
            self._run = run

        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return "torch._dynamo" in sys.modules  # torch would import its compiler here, which takes a second

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return self._run(func, args, kwargs or {})

    return OperationsMode


Saw = Callable[[Any, "tuple[Any, ...]", "dict[str, Any]", Any], None]
"""Is told of one operation: the operator, its arguments, what it returned."""


Raised = Callable[[Any, "tuple[Any, ...]", "dict[str, Any]"], None]
"""Is told of an operation that raised."""


class LoaderOperations:
    """The operations of one thread inside its loader calls: each runs once, those that concern us are told of.

    Entered at every loader call, so it goes by torch's two stack functions and leaves the process-wide flags alone
    that `TorchDispatchMode.__enter__` also sets (they keep torch.compile out; nothing compiles in a loader).
    """

    def __init__(self, concerns: Callable[[Any], bool], saw: Saw, raised: Raised = lambda *_: None) -> None:
        self._depth = 0
        self._mode = _mode_class("loader", _make_loader_class)(concerns, saw, raised)
        core = sys.modules["torch._C"]
        self._push, self._pop = (getattr(core, name) for name in _STACK)

    def enter(self) -> None:
        """Watch from here on; a call inside another one is watched already."""
        self._depth += 1
        if self._depth == 1:
            self._push(self._mode)

    def leave(self) -> None:
        """Stop watching when the outermost call ends."""
        self._depth -= 1
        if not self._depth:
            self._pop(None)


_STACK = "_push_on_torch_dispatch_stack", "_pop_torch_dispatch_stack"


def _make_loader_class() -> Any:
    base: Any = sys.modules["torch.utils._python_dispatch"].TorchDispatchMode
    overload: Any = sys.modules["torch._ops"].OpOverload

    class LoaderMode(base):  # type: ignore[misc]
        """Calls the operator below its Python wrapper: this runs at every operation of every loader call."""

        supports_higher_order_operators = True

        def __init__(self, concerns: Callable[[Any], bool], saw: Saw, raised: Raised) -> None:
            super().__init__()
            self._concerns, self._saw, self._raised = concerns, saw, raised
            self._known: dict[int, tuple[Any, bool, Any]] = {}

        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return "torch._dynamo" in sys.modules  # torch would import its compiler here, which takes a second

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            known = self._known.get(id(func))
            run, is_wanted, _ = known if known is not None else self._learn(func)
            try:
                out = run(*args, **kwargs) if kwargs else run(*args)
            except BaseException:
                if is_wanted:
                    self._raised(func, args, kwargs or {})
                raise
            if is_wanted:
                self._saw(func, args, kwargs or {}, out)
            return out

        def _learn(self, func: Any) -> tuple[Any, bool, Any]:
            """By identity, since an operator's own hash is computed in Python; the operator is kept with it."""
            run = func._op if type(func) is overload else func  # noqa: SLF001 - what OpOverload.__call__ calls
            known = self._known[id(func)] = run, hasattr(func, "_schema") and self._concerns(func), func
            return known

    return LoaderMode


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


def only_writes(func: Any) -> bool:
    """Whether the schema says that everything the operator returns is an argument it wrote to: it makes no memory."""
    returns = func._schema.returns  # noqa: SLF001 - see schema_name
    return bool(returns) and all(one.alias_info is not None and one.alias_info.is_write for one in returns)
