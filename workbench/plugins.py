"""Plugins are files of a folder, or entry points of other distributions; only the chosen one is imported."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import UserError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


@dataclass(frozen=True)
class PluginKind:
    """One kind of plugin: what people call it, the package whose files they are, the constant a file holds.

    Where `has_other_files`, the folder has files without the constant, which are no plugins.
    """

    noun: str
    package: str
    constant: str
    is_open: bool = True
    has_other_files: bool = False

    @property
    def group(self) -> str:
        """The entry point group by which another distribution adds one: `loadscope.` and the folder's name."""
        return f"loadscope.{self.package.rpartition('.')[2]}"


VERBS = PluginKind("verb", "workbench.commands", "COMMAND", is_open=False)
SCENARIOS = PluginKind("scenario", "workbench.scenarios", "SCENARIO")
ENGINES = PluginKind("engine", "backends.engines", "ENGINE")
DEVICES = PluginKind("device", "backends.devices", "DEVICE", has_other_files=True)
INSPECTORS = PluginKind("inspector", "inspectors", "INSPECTOR", has_other_files=True)
EXPORTS = PluginKind("export format", "sessions.export", "export")


def names(kind: PluginKind) -> tuple[str, ...]:
    """The names of all plugins of a kind, sorted, without importing any; `_` in a file's name is written `-`."""
    return tuple(sorted({_spelled(stem) for stem in _stems(kind)} | set(_foreign(kind))))


def engine_modules(engines: Sequence[str], adapters: Sequence[str]) -> tuple[str, ...]:
    """The adapters to expect in a host: those named; where none is, all engines, but for adapters of one's own."""
    expected = engines or (() if adapters else names(ENGINES))
    return (*(module_name(ENGINES, name) for name in expected), *adapters)


def module_name(kind: PluginKind, name: str) -> str:
    """The dotted module of a plugin. Raises UserError (exit 2) naming the nearest plugin for an unknown one."""
    foreign = _foreign(kind).get(name)
    is_ours = name.replace("-", "_") in _stems(kind)
    if foreign is not None and is_ours:
        raise UserError(
            f"two plugins claim the {kind.noun} {name!r}: {kind.package} and {foreign.value}",
            "uninstall one of the two, or ask its author for another name",
        )
    if foreign is not None:
        return foreign.module
    if is_ours:
        return f"{kind.package}.{name.replace('-', '_')}"
    raise UserError(f"unknown {kind.noun} {name!r}", did_you_mean(name, names(kind), kind.noun))


def load(kind: PluginKind, name: str) -> object:
    """The constant of one plugin's file. Raises UserError (exit 2) for an unknown name."""
    return getattr(importlib.import_module(module_name(kind, name)), kind.constant)


def did_you_mean(name: str, known: tuple[str, ...], noun: str) -> str:
    """What to try instead of an unknown name: the nearest one if one is near, and the list of all."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    listed = ", ".join(known) or "none"
    return f"{f'did you mean {near[0]!r}? ' if near else ''}known {noun}s: {listed}"


def _spelled(stem: str) -> str:
    return stem.replace("_", "-")


def _stems(kind: PluginKind) -> frozenset[str]:
    spec = importlib.util.find_spec(kind.package)
    folders = spec.submodule_search_locations if spec is not None else None
    files = [path for folder in folders or () for path in Path(folder).glob("*.py")]
    return frozenset(path.stem for path in files if not path.stem.startswith("_") and _is_plugin(kind, path))


def _is_plugin(kind: PluginKind, path: Path) -> bool:
    return not kind.has_other_files or f"\n{kind.constant} = " in path.read_text(encoding="utf-8")


def _foreign(kind: PluginKind) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=kind.group)} if kind.is_open else {}
