"""What the system tells of a process that runs: its command, its session, its Python, whose it is."""

from __future__ import annotations

import json
import os
import pwd
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import INCOMPLETE, UserError

PATIENCE_S = 30.0
_PYTHON_NAME = re.compile(r"python(3(\.\d+)?t?d?)?")
_LIBRARY = re.compile(r"/libpython3\.\d+[^/]*$")
_ASK = (
    "import json, sys; print(json.dumps([sys.implementation.name, *sys.version_info[:2], hasattr(sys, 'remote_exec')]))"
)


@dataclass(frozen=True)
class Process:
    """One process. `begun` tells it from a later one with the same id; `session` is that of its environment, or ""."""

    pid: int
    begun: str
    command: tuple[str, ...]
    session: str
    executable: str
    owner: int
    environment: Mapping[str, str]

    @property
    def name(self) -> str:
        """A short name: its script, else its program."""
        scripts = (Path(word).stem for word in self.command if word.endswith(".py"))
        return next(scripts, Path(self.command[0]).name if self.command else str(self.pid))

    @property
    def shown(self) -> str:
        """Its command as a person would type it."""
        return shlex.join(self.command) or "CMD"


@dataclass(frozen=True)
class Python:
    """The interpreter of a process: `executable` is its file, of the same build as what runs in the process."""

    executable: str
    version: str
    lets_in: bool


def process_of(pid: int) -> Process:
    """The process; raises UserError (exit 2) for one that is not there or not to be looked at."""
    folder = Path(f"/proc/{pid}")
    try:
        facts = folder.stat()
        variables = dict(pair.partition("=")[::2] for pair in _texts(folder / "environ") if "=" in pair)
        begun = os.fsdecode((folder / "stat").read_bytes()).rpartition(")")[2].split()[19]
        executable = str((folder / "exe").readlink())
        command = tuple(_texts(folder / "cmdline"))
    except PermissionError as error:
        raise _of_another(pid, folder.stat().st_uid) from error
    except (OSError, IndexError) as error:
        raise UserError(f"there is no process {pid}", "name the session folder instead") from error
    session = variables.get("LOADSCOPE_SESSION", "")
    return Process(pid, begun, command, session, executable, facts.st_uid, variables)


def python_of(process: Process) -> Python:
    """Its Python; raises UserError for a process that is none, or whose files are not those we see."""
    if process.owner != os.geteuid():  # what is run to find out is that user's program
        raise _of_another(process.pid, process.owner)
    path = process.executable
    if not _PYTHON_NAME.fullmatch(Path(path.removesuffix(" (deleted)")).name):
        is_inside = any(_LIBRARY.search(line) for line in _maps(process.pid))
        has = f"has a Python inside {path}, which cannot be entered" if is_inside else f"is no Python: it runs {path}"
        raise UserError(f"process {process.pid} {has}", "name the process that loads the model: pgrep -af python")
    if path.endswith(" (deleted)") or not _shares_files(process.pid):
        raise UserError(
            f"process {process.pid} runs {path}, which is not on this machine as that process sees it",
            "run loadscope attach inside its container, with the Python it was started with still there",
            INCOMPLETE,
        )
    try:
        done = subprocess.run(
            [path, "-I", "-S", "-c", _ASK], capture_output=True, text=True, timeout=PATIENCE_S, check=True
        )
        implementation, major, minor, lets_in = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise UserError(f"{path} of process {process.pid} does not say what it is: {error}", f"{path} -VV") from error
    return Python(path, f"{major}.{minor}", bool(lets_in) and implementation == "cpython")


def _of_another(pid: int, owner: int) -> UserError:
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = str(owner)
    if owner == os.geteuid():
        return UserError(
            f"process {pid} may not be looked at: this needs the right to trace processes", f"as root, {_RIGHTS}"
        )
    return UserError(
        f"process {pid} belongs to another user, {name}", f"attach as that user: sudo -u {name} loadscope attach {pid}"
    )


_RIGHTS = "or in a container started with --cap-add=SYS_PTRACE; see also /proc/sys/kernel/yama/ptrace_scope"


def _texts(file: Path) -> list[str]:
    return os.fsdecode(file.read_bytes()).split("\0")[:-1]


def _maps(pid: int) -> list[str]:
    try:
        return os.fsdecode(Path(f"/proc/{pid}/maps").read_bytes()).splitlines()
    except OSError:
        return []


def _shares_files(pid: int) -> bool:
    """Whether a path means the same to that process as to us."""
    return Path(f"/proc/{pid}/ns/mnt").readlink() == Path("/proc/self/ns/mnt").readlink()
