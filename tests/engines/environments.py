"""Builds the environments of real engines from their pinned lists, and tells where an environment's Python is.

python tests/engines/environments.py                 say which are there
python tests/engines/environments.py sglang-0.5.10   build it
python tests/engines/environments.py all
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

LISTS = Path(__file__).parent / "environments"
VARIABLE = "LOADSCOPE_ENGINES"
AT_START = {"vllm-0.32": "torchvision_schemas"}
"""A module of that folder which an environment's Python runs at every start, for want of a package's CPU build."""


def names() -> tuple[str, ...]:
    """`ENGINE-VERSION` of every environment that can be built."""
    return tuple(sorted(path.stem for path in LISTS.glob("*.txt")))


def folder() -> Path:
    """Where environments are kept: $LOADSCOPE_ENGINES, else the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(VARIABLE) or Path(cache) / "loadscope" / "engines")


def python_of(name: str) -> Path:
    """The Python of an environment, whether or not it was built."""
    return folder() / name / "bin" / "python"


def is_built(name: str) -> bool:
    """Whether the environment was built to the end, from the list as it is now."""
    mark = folder() / name / "complete"
    return mark.is_file() and mark.read_text("utf-8") == (LISTS / f"{name}.txt").read_text("utf-8")


def why_missing(name: str) -> str:
    """What a test that needs the environment says when it is skipped."""
    return f"no environment {name} in {folder()}: python tests/engines/environments.py {name} (or set {VARIABLE})"


def build(name: str) -> None:
    """Make the environment with the Python that runs this; raises CalledProcessError when pip fails.

    torch is taken from wherever pip finds its version first: PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL can name
    a CPU build.
    """
    target, python = folder() / name, python_of(name)
    (target / "complete").unlink(missing_ok=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(target)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*install, "--requirement", str(LISTS / f"{name}.txt")], check=True)
    if name in AT_START:
        _run_at_start(python, AT_START[name])
    (target / "complete").write_text((LISTS / f"{name}.txt").read_text("utf-8"), "utf-8")


def _run_at_start(python: Path, module: str) -> None:
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    shutil.copy(LISTS / f"{module}.py", packages)
    (packages / f"{module}.pth").write_text(f"import {module}\n", "utf-8")


def main(asked: list[str]) -> int:
    """Build what is asked for, or say what there is; 2 for an unknown name."""
    unknown = [name for name in asked if name not in (*names(), "all")]
    if unknown:
        print(f"no environment {unknown[0]!r}; known: {', '.join(names())}, all", file=sys.stderr)
        return 2
    for name in names() if "all" in asked else asked:
        if not is_built(name):
            print(f"building {folder() / name}", file=sys.stderr)
            build(name)
    for name in names():
        print(f"{name:<16} {python_of(name) if is_built(name) else 'not built'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
