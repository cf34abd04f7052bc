"""Who may import whom, read from the sources."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("workbench", "inspectors", "backends", "sessions")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
STANDARD = set(sys.stdlib_module_names) | {"__future__"}


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of every import anywhere in a file, `from a import b` as a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative imports hide the direction"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return ".".join(parts[:2]) if parts[0] == "backends" and len(parts) > 2 else parts[0]


ALLOWED = {
    "inspectors": ("inspectors",),
    "backends": (),
    "backends.native": ("backends.native", "backends.devices"),
    "backends.devices": ("backends.devices",),
    "backends.engines": ("inspectors.probe.tracepoint", "backends.engines"),
    "sessions": ("sessions", "inspectors.probe.events"),
    "workbench": PACKAGES,
}


def is_launcher(path: Path) -> bool:
    """A program of ours that runs an engine in the engine's own environment, and so may use what it has."""
    return room_of(path) == "backends.engines" and path.name.startswith("_") and path.name != "__init__.py"


def starts_with(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def wrong_imports(sources: Iterable[Path]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources
        for name, line in imported(path)
        if name.partition(".")[0] in PACKAGES and not starts_with(name, ALLOWED[room_of(path)])
    ]


def test_a_file_imports_only_what_its_room_may_know():
    assert wrong_imports(SOURCES) == []


def test_what_enters_a_host_imports_the_standard_library_only():
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in SOURCES
        if room_of(path) in ("inspectors", "backends.engines") and not is_launcher(path)
        for name, line in imported(path)
        if name.partition(".")[0] not in STANDARD | {"inspectors"}
    ]
    assert wrong == []


@pytest.mark.parametrize(("library", "home"), [("textual", "workbench/tui"), ("plotly", "workbench/reports")])
def test_a_library_of_the_screen_stays_in_its_folder(library: str, home: str):
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in SOURCES
        if not path.is_relative_to(ROOT / home)
        for name, line in imported(path)
        if name.partition(".")[0] == library
    ]
    assert not wrong


def test_the_sources_were_found():
    rooms = {room_of(path) for path in SOURCES}
    assert rooms >= {"inspectors", "backends.native", "backends.devices", "backends.engines", "sessions", "workbench"}
