"""Post-import hooks: tells the probe of an engine's module right after its code ran, before anyone uses it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class ImportHooks:
    """A meta path finder that leaves finding to the others and wraps the loaders of the modules it covers."""

    reports_imports = True

    def __init__(
        self, packages: Iterable[str], modules: Iterable[str], ready: Callable[[str, ModuleType], None]
    ) -> None:
        self._packages, self._modules, self._ready = tuple(packages), frozenset(modules), ready
        self._below = tuple(f"{package}." for package in self._packages)
        self._searching = threading.local()

    def covers(self, name: str) -> bool:
        """True for a watched module and for everything in a watched package, the package itself included."""
        return name in self._modules or name in self._packages or name.startswith(self._below)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that the other finders give, with a loader that reports; None for other modules."""
        if not self.covers(name):
            return None
        names = self._searching.__dict__.setdefault("names", set())
        if name in names:
            return None
        names.add(name)
        try:
            spec = self._ask_others(name, path, target)
        finally:
            names.discard(name)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _ReportingLoader(spec.loader, self._ready)  # type: ignore[assignment]
        return spec

    def _ask_others(self, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        for finder in list(sys.meta_path):
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec: ModuleSpec | None = find(name, path, target)
            if spec is not None:
                return spec
        return None


class _ReportingLoader:
    """Stands in for a loader until its module runs; the module itself only ever sees the loader it had."""

    def __init__(self, loader: Any, ready: Callable[[str, ModuleType], None]) -> None:
        self._loader, self._ready = loader, ready

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        create = getattr(self._loader, "create_module", None)
        module: ModuleType | None = create(spec) if create is not None else None
        return module

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._ready(module.__name__, module)
