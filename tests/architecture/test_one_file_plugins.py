"""A plugin is one file: its name is the file's name and stands in no other source file."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("workbench", "inspectors", "backends", "sessions")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FOLDERS = (
    "workbench/scenarios",
    "workbench/diagnosis",
    "backends/native/models",
    "backends/native/quantization",
    "sessions/export",
)


def constants(path: Path) -> set[str]:
    """Names that a module assigns at its top level."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    assigned = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    annotated = [node.target for node in body if isinstance(node, ast.AnnAssign)]
    return {node.id for node in [*assigned, *annotated] if isinstance(node, ast.Name)}


def plugins() -> list[Path]:
    """The files which a folder listing takes for plugins of their folder."""
    marks = {"SCENARIO", "RULE", "ARCHITECTURES", "QUANT_METHODS"}
    files = [path for folder in FOLDERS for path in (ROOT / folder).glob("[!_]*.py")]
    return sorted(path for path in files if constants(path) & marks or path.parent.name == "export")


def is_own(module: str) -> bool:
    """Whether a dotted name is in one of our packages."""
    return module.partition(".")[0] in PACKAGES


def words(path: Path) -> Iterator[tuple[str, int]]:
    """Every name that a file spells out in code: string literals (not docstrings) and imported modules of ours.

    A library of others may be called like a plugin, as the one that a format is named after.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    scopes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, scopes) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value, node.lineno
        elif isinstance(node, ast.Import):
            own = [alias.name for alias in node.names if is_own(alias.name)]
            yield from ((name, node.lineno) for name in own)
            yield from ((part, node.lineno) for name in own for part in name.split("."))
        elif isinstance(node, ast.ImportFrom) and is_own(node.module or ""):
            yield node.module or "", node.lineno
            yield from ((part, node.lineno) for part in (node.module or "").split("."))
            for alias in node.names:
                yield from ((alias.name, node.lineno), (f"{node.module}.{alias.name}", node.lineno))


PLUGINS = plugins()
NEUTRAL = {
    # What every method falls back on: an engine has it whether or not a checkpoint is quantized.
    "unquantized",
}
RECIPES = "scenarios"
"""A scenario writes a config.json, which names its method as a published checkpoint does."""


def is_excused(path: Path, plugin: Path) -> bool:
    """Whether a file may spell out a plugin's name: the plugin's own, and recipes, which say what config.json says."""
    return path == plugin or (path.parent.name == RECIPES and plugin.parent.name == "quantization")


@functools.cache
def spelled(path: Path) -> tuple[tuple[str, int], ...]:
    """The `words` of a file, read once for all plugins."""
    return tuple(words(path))


def spelled_elsewhere(plugin: Path) -> list[str]:
    """Where other files spell out the name of a plugin."""
    names = {plugin.stem, plugin.stem.replace("_", "-")}
    if plugin.parent.name == "diagnosis":
        # A rule is often called as the fact it judges (`never_filled`); what it is must not be imported by name.
        names = {f"workbench.diagnosis.{plugin.stem}"}
    return [
        f"{path.relative_to(ROOT)}:{line} names {plugin.relative_to(ROOT)}"
        for path in SOURCES
        if not is_excused(path, plugin)
        for word, line in spelled(path)
        if word in names
    ]


def test_the_name_of_a_plugin_stands_in_no_other_source_file():
    assert [line for plugin in PLUGINS if plugin.stem not in NEUTRAL for line in spelled_elsewhere(plugin)] == []


def test_plugins_of_every_folder_were_found():
    assert {str(path.parent.relative_to(ROOT)) for path in PLUGINS} == set(FOLDERS)
