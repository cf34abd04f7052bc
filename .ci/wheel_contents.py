"""Check that a wheel holds our packages, the arming line and nothing else."""

import ast
import sys
import zipfile
from pathlib import Path

PACKAGES = {"workbench", "inspectors", "backends", "sessions"}
PTH = "loadscope.pth"
SUFFIXES = {".py", ".tcss", ".html", ".c", ".h"}  # C is compiled on the machine that runs it


def problems(names: list[str], root: Path) -> list[str]:
    """What is missing from a wheel with these members, and what does not belong there."""
    found = []
    for name in names:
        top, path = name.split("/", 1)[0], Path(name)
        if top in PACKAGES:
            if path.suffix not in SUFFIXES or "tests" in path.parts:
                found.append(f"does not belong in a package: {name}")
        elif name != PTH and not top.endswith(".dist-info"):
            found.append(f"does not belong in the wheel: {name}")
    wanted = {PTH} | {
        str(path.relative_to(root))
        for package in PACKAGES
        for path in (root / package).rglob("*")
        if path.suffix in SUFFIXES
    }
    return found + [f"missing: {name}" for name in sorted(wanted - set(names))]


def pth_problems(text: str) -> list[str]:
    """Python runs a line of a .pth file only when it is one line that starts with import."""
    lines = text.strip().splitlines()
    if len(lines) != 1 or not lines[0].startswith("import "):
        return [f"{PTH} has {len(lines)} lines and starts with {text[:20]!r}, expected one that starts with 'import '"]
    ast.parse(lines[0])
    return []


def main(wheel: str) -> int:
    """Print every problem; returns how many there are, as an exit code."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        found = problems(names, Path(__file__).resolve().parent.parent)
        if PTH in names:
            found += pth_problems(archive.read(PTH).decode())
        if not any(name.endswith("entry_points.txt") for name in names):
            found.append("missing: entry_points.txt with the loadscope command")
    for line in found:
        print(line, file=sys.stderr)
    print(f"{Path(wheel).name}: {len(names)} files, {len(found)} problems")
    return min(len(found), 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
