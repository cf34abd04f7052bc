"""The command line as a person uses it: in a process of its own, with folders of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

LIMIT_S = 240


@dataclass(frozen=True)
class Ran:
    """How one run of the command ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output as the one object it must be."""
        return json.loads(self.stdout)

    @property
    def error_lines(self) -> list[str]:
        return self.stderr.splitlines()


Loadscope = Callable[..., Ran]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def variables(home: Path) -> dict[str, str]:
    """The environment of the command: nothing of the person's own, few threads."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LOADSCOPE_")}
    return {
        **kept,
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_STATE_HOME": str(home / "state"),
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="session")
def loadscope(home: Path, variables: dict[str, str]) -> Loadscope:
    """Runs `loadscope WORDS` and returns how it ended; keywords are more environment variables."""

    def run(*words: object, **more: str) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "workbench.cli", *map(str, words)],
            cwd=home,
            env={**variables, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def demo(loadscope: Loadscope, home: Path) -> Ran:
    """The plain demo, once for all tests."""
    return loadscope("demo", "--json", "-o", home / "demo")


@pytest.fixture(scope="session")
def failed_demo(loadscope: Loadscope, home: Path) -> Ran:
    """The demo with the planted fallback table, once for all tests."""
    return loadscope("demo", "--scenario", "fp8-skip", "--json", "-o", home / "failed-demo")


@pytest.fixture(scope="session")
def model(demo: Ran) -> Path:
    """The tiny FP8 checkpoint that the demo made; not to be changed."""
    manifest = json.loads((Path(demo.json["session"]) / "session.json").read_text(encoding="utf-8"))
    return Path(manifest["model"])


@pytest.fixture
def own_model(model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that a test may break."""
    return Path(shutil.copytree(model, tmp_path / "model"))
