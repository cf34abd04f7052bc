"""`loadscope doctor`: say what works in this Python and what is missing."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import sqlite3
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict, dataclass
from typing import Any

from workbench import arguments, arming, capabilitytext, launching, places, plugins
from workbench.cli import distribution_version
from workbench.command import Command
from workbench.errors import CLEAN, INCOMPLETE, UserError
from workbench.surveytext import tell_tracepoints

OLDEST_SQLITE = (3, 24)
ASKED = "workbench.capabilities"
PATIENCE_S = 120


@dataclass(frozen=True)
class Check:
    """One fact about this installation; `try_` is empty when nothing needs to be done."""

    name: str
    is_ok: bool
    found: str
    try_: str = ""


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--engine", metavar="NAME", help="say which tracepoints of this engine can be set")
    parser.add_argument(
        "--python", metavar="PATH", help="the Python of the engine's own environment (default: this one)"
    )
    arguments.add_json(parser)


def _run(args: Namespace) -> int:
    if args.python and not args.engine:
        raise UserError("--python names an environment, but no engine to look for in it", "add --engine NAME")
    if args.engine:
        return tell_tracepoints(args.engine, args.python or sys.executable, as_json=args.json)
    found, refused = _capabilities()
    checks = [*_own_checks(), *_engine_checks(), *([refused] if refused else [])]
    is_complete = all(check.is_ok for check in checks)
    code = CLEAN if is_complete else INCOMPLETE
    if args.json:
        rows = [asdict(check) for check in checks]
        outcome = "ok" if is_complete else "incomplete"
        said = {"schema": 1, "verb": "doctor", "outcome": outcome, "exit_code": code, "checks": rows, **(found or {})}
        print(json.dumps(said))
        return code
    for check in checks:
        print(f"{'•' if check.is_ok else '✗'} {check.name:<{capabilitytext.WIDTH}} {check.found}")
        if check.try_:
            print(f"  {'':<{capabilitytext.WIDTH}} try: {check.try_}")
    if found is not None:
        print("\n".join(capabilitytext.lines(found)))
    return code


def _capabilities() -> tuple[dict[str, Any] | None, Check | None]:
    """What the embedded engine has here, asked in a process of its own, which imports torch; or why nobody can say."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(arming.ROOT), os.environ.get("PYTHONPATH", "")])}
    try:
        asked = subprocess.run(
            [sys.executable, "-m", ASKED],
            env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE_S,
        )  # fmt: skip
        return json.loads(asked.stdout), None
    except subprocess.TimeoutExpired:
        why = f"no answer within {PATIENCE_S} s"
    except subprocess.CalledProcessError as error:
        why = next(iter(reversed(error.stderr.strip().splitlines())), f"exit code {error.returncode}")
    except ValueError as error:
        why = f"it answered something else than JSON: {error}"
    try_ = f"run {sys.executable} -m {ASKED} to see its error; recording a host needs none of it"
    return None, Check("embedded engine", is_ok=False, found=f"cannot be asked: {why}", try_=try_)


def _own_checks() -> list[Check]:
    pth = arming.pth_file()
    needs_newer = sqlite3.sqlite_version_info < OLDEST_SQLITE
    return [
        Check("loadscope", is_ok=True, found=f"{distribution_version()} in {arming.ROOT}"),
        Check("python", is_ok=True, found=f"{platform.python_version()} at {sys.executable}"),
        Check(
            "sqlite",
            not needs_newer,
            sqlite3.sqlite_version,
            "use a Python with SQLite 3.24 or newer" if needs_newer else "",
        ),
        Check(
            "arming",
            pth is not None,
            str(pth) if pth else f"no {arming.PTH_NAME} in site-packages: loadscope run cannot arm a command",
            "" if pth else "pip install . (an editable install does not place it)",
        ),
        _writable("sessions"),
    ]


def _writable(name: str) -> Check:
    folder = places.sessions_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (probe := folder / ".doctor").touch()
        probe.unlink()
    except OSError as error:
        return Check(
            name, is_ok=False, found=f"{folder}: {error.strerror}", try_="set LOADSCOPE_DIR to a writable folder"
        )
    return Check(name, is_ok=True, found=str(folder))


def _engine_checks() -> list[Check]:
    checks = []
    for name in plugins.names(plugins.ENGINES):
        engine = launching.engine_named(name)
        is_here = importlib.util.find_spec(engine.module) is not None
        found = f"engine {launching.version_of(engine.distribution)}" if is_here else "engine, not installed"
        checks.append(Check(name, is_ok=True, found=found))
    missing = [name for name in ("torch", "safetensors", "textual") if importlib.util.find_spec(name) is None]
    found = "torch, safetensors and textual are here" if not missing else f"missing: {', '.join(missing)}"
    checks.append(
        Check("workbench", not missing, found, "pip install loadscope, with its dependencies" if missing else "")
    )
    return checks


COMMAND = Command(
    summary="say what works in this Python and what is missing",
    examples=("loadscope doctor", "loadscope doctor --json", "loadscope doctor --engine NAME --python env/bin/python"),
    add_arguments=_add_arguments,
    run=_run,
)
