"""What is special to a device stays in its own file: others ask the object, never its name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.devices.placement import modules

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("workbench", "inspectors", "backends", "sessions")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
HOME = ROOT / "backends/devices"
NEUTRAL = {"cpu"}
"""Where tensors are when nobody asks for anything else."""
LIBRARIES = {"cuda": ("torch.cuda",), "npu": ("torch.npu", "torch_npu")}
KINDS = ROOT / "backends/native/kernels"


def dotted(node: ast.AST) -> str:
    """`a.b.c` as text; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def compared_names(path: Path) -> Iterator[str]:
    """Strings of comparisons and of match cases, with their lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare | ast.MatchValue):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield f"{part.value} in {path.relative_to(ROOT)}:{part.lineno}"


def test_the_devices_are_found():
    assert set(modules()) >= {"cpu", "cuda", "npu", "simulated-npu", "null"}


def test_no_file_compares_anything_with_the_name_of_a_device():
    names = set(modules()) - NEUTRAL
    found = [line for path in SOURCES if path.parent != HOME for line in compared_names(path)]
    assert [line for line in found if line.partition(" in ")[0].partition(":")[0] in names] == []


@pytest.mark.parametrize("device", LIBRARIES)
def test_the_library_of_a_device_is_spoken_to_in_its_own_file_only(device: str):
    spoken = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        if path != HOME / f"{device}.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and dotted(node) in LIBRARIES[device]
    ]
    assert spoken == []


def subscripted_calls(path: Path) -> Iterator[str]:
    """`kernel[grid](...)`, which launches without a look at the limits."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript):
            yield f"{path.relative_to(ROOT)}:{node.lineno}"


def test_every_triton_launch_is_checked_against_the_limits_of_its_device():
    launches = [path for path in sorted((KINDS / "triton").glob("*.py")) if "launchable(" in path.read_text()]
    assert launches
    assert [line for path in sorted((KINDS / "triton").glob("*.py")) for line in subscripted_calls(path)] == []
