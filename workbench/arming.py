"""How a host finds the probe: by the installed loadscope.pth, or, from a source checkout, by a line of Python."""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

import workbench

PTH_NAME = "loadscope.pth"
ROOT = Path(workbench.__file__).resolve().parent.parent
ARM_AND_RUN = (
    "import runpy, sys; from inspectors.probe.bootstrap import arm; arm(); "
    "name = sys.argv.pop(1); runpy.run_module(name, run_name='__main__', alter_sys=True)"
)

_INTERPRETER = re.compile(
    rb"^(?:#!|'{3}exec' ).*?(\x22/[^\x22]*/python[\d.]*\x22|(?:/[^\s\x22]*/)?\bpython[\d.]*)(?=\s|$)"
)
_ASK_PTH = (
    "import os, site, sys; folders = [*site.getsitepackages(), site.getusersitepackages()]; "
    "print(any(os.path.isfile(os.path.join(folder, sys.argv[1])) for folder in folders))"
)


def environment(session: Path, level: str, command: tuple[str, ...] = ()) -> dict[str, str]:
    """The variables that arm the probe in a host and in all its children. Raises OSError.

    A `command` of another environment that arms itself is shown our packages that enter hosts, and no others.
    """
    variables = {"LOADSCOPE_SESSION": str(session), "LOADSCOPE_LEVEL": level}
    # A checkout is importable from wherever it was started; its host must find it from any folder.
    door = str(ROOT) if not is_installed() else door_in(session) if ARM_AND_RUN in command else ""
    if door:
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [door, os.environ.get("PYTHONPATH", "")]))
    return variables


def is_foreign(python: str) -> bool:
    """Whether a command's first word is another Python than the one that runs the workbench."""
    return Path(python).absolute() != Path(sys.executable).absolute()


def door_in(session: Path) -> str:
    """A folder that holds only what enters a host: site-packages as a whole would bring our torch into it."""
    folder = session / "door"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("inspectors", "backends"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    return str(folder)


def pth_file() -> Path | None:
    """The loadscope.pth that this interpreter reads at its start, None without one."""
    folders = [*site.getsitepackages(), site.getusersitepackages()]
    return next((path for folder in folders if (path := Path(folder) / PTH_NAME).is_file()), None)


def arms(command: str) -> bool:
    """Whether a command's Python reads a loadscope.pth; of a command that names none, ours is asked."""
    found = _python_of(shutil.which(command))
    if found is None or not is_foreign(found):
        return pth_file() is not None
    done = subprocess.run([found, "-c", _ASK_PTH, PTH_NAME], capture_output=True, text=True, check=False)
    return done.stdout.strip() == "True"


def _python_of(command: str | None) -> str | None:
    """The Python that a command is, or that a script names in its first line, or in its second as pip writes it."""
    if command is None or Path(command).name.startswith("python"):
        return command
    try:
        with Path(command).open("rb") as opened:
            head = opened.read(1024).split(b"\n")[:2]
    except OSError:
        return None
    named = next(filter(None, map(_INTERPRETER.match, head)), None)
    return shutil.which(named[1].decode().strip('"')) if named else None


def is_installed() -> bool:
    """Whether this workbench runs from site-packages, not from a checkout."""
    return ROOT in {Path(sysconfig.get_path(scheme)).resolve() for scheme in ("purelib", "platlib")}


def armed(command: tuple[str, ...]) -> tuple[str, ...]:
    """An engine's command `python -m MODULE …` so that it arms itself where no loadscope.pth does it."""
    if command[1:2] != ("-m",):
        return command
    if is_foreign(command[0]):
        return (command[0], "-c", ARM_AND_RUN, *command[2:])
    if is_installed():
        # `-m` puts the current folder first: in a checkout it would hide the installed packages from the host.
        return (command[0], "-I", *command[1:])
    if pth_file() is not None:
        return command
    return (command[0], "-c", ARM_AND_RUN, *command[2:])
