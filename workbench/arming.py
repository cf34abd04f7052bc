"""How a host finds the probe: by the installed loadscope.pth, or, from a source checkout, by a line of Python."""

from __future__ import annotations

import os
import site
import sysconfig
from pathlib import Path

import workbench

PTH_NAME = "loadscope.pth"
ROOT = Path(workbench.__file__).resolve().parent.parent
ARM_AND_RUN = (
    "import runpy, sys; from inspectors.probe.bootstrap import arm; arm(); "
    "name = sys.argv.pop(1); runpy.run_module(name, run_name='__main__', alter_sys=True)"
)


def environment(session: Path, level: str) -> dict[str, str]:
    """The variables that arm the probe in a host and in all its children."""
    variables = {"LOADSCOPE_SESSION": str(session), "LOADSCOPE_LEVEL": level}
    if not is_installed():
        # A checkout is importable from wherever it was started; its host must find it from any folder.
        before = os.environ.get("PYTHONPATH", "")
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), before]))
    return variables


def pth_file() -> Path | None:
    """The loadscope.pth that this interpreter reads at its start, None without one."""
    folders = [*site.getsitepackages(), site.getusersitepackages()]
    return next((path for folder in folders if (path := Path(folder) / PTH_NAME).is_file()), None)


def is_installed() -> bool:
    """Whether this workbench runs from site-packages, not from a checkout."""
    return ROOT in {Path(sysconfig.get_path(scheme)).resolve() for scheme in ("purelib", "platlib")}


def armed(command: tuple[str, ...]) -> tuple[str, ...]:
    """An engine's command `python -m MODULE …` so that it arms itself where no loadscope.pth does it."""
    if command[1:2] != ("-m",):
        return command
    if is_installed():
        # `-m` puts the current folder first: in a checkout it would hide the installed packages from the host.
        return (command[0], "-I", *command[1:])
    if pth_file() is not None:
        return command
    return (command[0], "-c", ARM_AND_RUN, *command[2:])
