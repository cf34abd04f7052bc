"""The table of kernels in their README is what the folders hold."""

from __future__ import annotations

import re
from pathlib import Path

KERNELS = Path(__file__).parents[2] / "backends/native/kernels"
HEADER = "| operator |"


def written():
    """operator -> the kinds that the README gives it."""
    rows = (KERNELS / "README.md").read_text(encoding="utf-8").partition(HEADER)[2].partition("\n\n")[0].splitlines()
    kinds = [cell.strip() for cell in rows[0].split("|")[:-2]]
    table = {}
    for row in rows[2:]:
        names, *marks = (cell.strip() for cell in row.split("|")[1:-2])
        assert set(marks) <= {"✓", ""}, row
        given = {kind for kind, mark in zip(kinds, marks, strict=True) if mark}
        table |= dict.fromkeys(re.findall(r"`(\w+)`", names), given)
    return table


def found():
    """operator -> the kinds that have a file of its name; an operator is what the reference registers."""
    kinds = [path.parent for path in KERNELS.glob("*/__init__.py")]
    registered = re.compile(r"^@reference_op\ndef (\w+)\(", flags=re.MULTILINE)
    names = {name for path in (KERNELS / "reference").glob("*.py") for name in registered.findall(path.read_text())}
    return {name: {kind.name for kind in kinds if (kind / f"{name}.py").exists()} for name in names}


def test_the_table_of_operators_and_kinds_is_what_the_folders_hold():
    assert written() == found()
