"""The shape of files and functions."""

from __future__ import annotations

import ast
import statistics
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("workbench", "inspectors", "backends", "sessions")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MAX_LINES = 400


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_a_file_has_at_most_400_lines():
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES + TESTS}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_a_file_says_in_its_first_sentence_what_it_is_for():
    first = {name_of(path): (ast.get_docstring(tree(path)) or "").partition("\n\n")[0].rstrip() for path in SOURCES}
    assert [name for name, sentence in first.items() if not sentence.endswith((".", "…"))] == []


def test_there_is_no_bare_assert_outside_tests():
    found = [f"{name_of(p)}:{n.lineno}" for p in SOURCES for n in ast.walk(tree(p)) if isinstance(n, ast.Assert)]
    assert found == []


def is_silent(node: ast.AST) -> bool:
    """Whether a handler catches everything and does nothing."""
    if not isinstance(node, ast.ExceptHandler) or not all(isinstance(statement, ast.Pass) for statement in node.body):
        return False
    return node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))


def test_no_error_is_swallowed_without_a_word():
    assert [f"{name_of(p)}:{n.lineno}" for p in SOURCES for n in ast.walk(tree(p)) if is_silent(n)] == []


def test_no_file_or_class_has_a_name_that_says_nothing():
    files = [name_of(p) for p in SOURCES if p.stem in ("utils", "util", "helpers", "helper", "base", "common", "misc")]
    classes = [n.name for p in SOURCES for n in ast.walk(tree(p)) if isinstance(n, ast.ClassDef)]
    assert files + [name for name in classes if name.endswith(("Manager", "Helper"))] == []


def test_functions_are_short():
    lengths = sorted(
        node.end_lineno - node.lineno + 1
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert statistics.median(lengths) <= 10
    assert lengths[int(len(lengths) * 0.95)] <= 40


def test_tests_are_no_package():
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_every_top_folder_has_a_readme():
    assert [name for name in [*PACKAGES, "tests"] if not (ROOT / name / "README.md").is_file()] == []
