"""Asks another environment's Python about an engine: whether it is there, and in which version."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from inspectors.probe.tracepoint import Engine
from workbench.errors import UserError

PATIENCE_S = 60.0
OLDEST_PYTHON = (3, 10)
_ASK = (
    "import importlib.metadata as m, importlib.util as u, json, sys\n"
    "try: version = m.version(sys.argv[2])\n"
    "except m.PackageNotFoundError:\n"
    "    made_of = m.packages_distributions().get(sys.argv[1], ())\n"  # a build for another device has another name
    "    version = m.version(made_of[0]) if made_of else ''\n"
    "spec = u.find_spec(sys.argv[1])\n"
    "folders = list(spec.submodule_search_locations or ()) if spec is not None else []\n"
    "print(json.dumps([spec is not None, version, list(sys.version_info[:2]), folders]))"
)


@dataclass(frozen=True)
class Installed:
    """An engine in an environment: its version ("source" where it is only importable) and its package's folder."""

    version: str
    folder: Path


def installed(python: str, engine: Engine) -> Installed:
    """The engine in that environment. Raises UserError (exit 2) naming what is missing there."""
    is_here, version, numbers, folders = _ask(python, engine)
    if tuple(numbers) < OLDEST_PYTHON:
        raise UserError(
            f"{python} is Python {'.'.join(map(str, numbers))}, the probe needs 3.10 or newer", "name another --python"
        )
    if not is_here or not folders:
        raise UserError(
            f"{python} has no {engine.distribution}",
            f"name the Python of the environment with {engine.name}: --python PATH",
        )
    return Installed(version or "source", Path(folders[0]))


def _ask(python: str, engine: Engine) -> tuple[bool, str, list[int], list[str]]:
    if shutil.which(python) is None:
        raise UserError(
            f"there is no Python at {python}", "give --python the path of an interpreter, such as env/bin/python"
        )
    asked = [python, "-c", _ASK, engine.module, engine.distribution]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LOADSCOPE_")}
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=PATIENCE_S, env=clean)
        is_here, version, numbers, folders = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        said = str(getattr(error, "stderr", "") or error).strip().splitlines()
        raise UserError(
            f"{python} cannot say what it has: {said[-1] if said else type(error).__name__}",
            f"try it by hand: {python} -c 'import {engine.module}'",
        ) from error
    return bool(is_here), str(version), [int(n) for n in numbers], [str(folder) for folder in folders]
