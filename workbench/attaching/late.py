"""Attaching to a process that was not started under Loadscope: what it loads from now on is recorded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from argparse import Namespace
from pathlib import Path

from workbench import arming, launching, places, plugins
from workbench.attaching.process import PATIENCE_S, Process, Python, python_of
from workbench.errors import INCOMPLETE, UserError
from workbench.launching import Watch

ENTER_SECONDS = 10.0
_REST_SECONDS = 0.05
_ENTER = "import sys; sys.remote_exec(int(sys.argv[1]), sys.argv[2])"
_SCRIPT = """\
def enter(door, folder, answer, script):
    import json, os, sys
    from importlib.machinery import PathFinder
    try:
        os.unlink(script)
        spec = getattr(sys.modules.get("inspectors"), "__spec__", None) or PathFinder.find_spec("inspectors")
        places = list(getattr(spec, "submodule_search_locations", None) or ())
        if spec is None:
            sys.path.append(door)
        elif not any(os.path.isfile(os.path.join(place, "probe", "late.py")) for place in places):
            raise ImportError("it has a package 'inspectors' of its own, or an older loadscope: %s" % (places,))
        from inspectors.probe.late import enter
        said = enter(folder)
    except BaseException as error:
        said = {{"error": "%s: %s" % (type(error).__name__, error)}}
    with open(answer + ".part", "w", encoding="utf-8") as file:
        json.dump(said, file)
    os.replace(answer + ".part", answer)
enter({door!r}, {folder!r}, {answer!r}, {script!r})
"""


def session_of(process: Process, args: Namespace) -> tuple[Path, tuple[str, ...]]:
    """The session that the process records into from now on, and the engines it has. Raises UserError.

    A process that was entered before is not entered again.
    """
    folder = _earlier(process)
    if folder is None:
        python = python_of(process)
        _refuse_early(process, python)
        folder = _begin(process, args)
        try:
            _send(process, python, folder)
        except UserError:
            shutil.rmtree(folder)
            raise
        _remember(process, folder)
    said = _answer(process, folder)
    found = Path(str(said["session"]))
    if found != folder:  # it is a forked child of a host, or was entered by somebody else
        shutil.rmtree(folder)
        _remember(process, found)
    engines = said.get("engines")
    return found, tuple(str(one) for one in engines) if isinstance(engines, list) else ()


def _refuse_early(process: Process, python: Python) -> None:
    """UserError where nobody can be let in: an older Python, or one that was told not to."""
    pid, again = process.pid, f"start it anew: loadscope run --hold -- {process.shown}"
    if not python.lets_in:
        stacks = f"py-spy dump --pid {pid} shows what it does; " if shutil.which("py-spy") else ""
        raise UserError(
            f"process {pid} was not started under Loadscope, and only Python 3.14 and later can be entered while it "
            f"runs (this is {python.version}): nothing of what it loaded or will load can be told",
            stacks + again,
        )
    is_told = "disable_remote_debug" in " ".join(process.command).replace("-", "_")
    if process.environment.get("PYTHON_DISABLE_REMOTE_DEBUG") or is_told:
        raise UserError(
            f"process {pid} was not started under Loadscope, and was told to let nobody in "
            "(PYTHON_DISABLE_REMOTE_DEBUG or -X disable_remote_debug)",
            again,
        )


def _begin(process: Process, args: Namespace) -> Path:
    modules = plugins.engine_modules(args.engine, args.adapter)
    watch = Watch("attach", level=args.level, hold_s=args.hold)
    folder = places.new_session_folder("attach", process.name, args.output)
    manifest = launching.manifest_of_attached(process, folder, modules, watch)
    manifest.write(folder)
    (folder / "late").mkdir(mode=0o700)
    door, script, answer = arming.door_in(folder), folder / "late" / "enter.py", folder / "late" / "answer.json"
    text = _SCRIPT.format(door=door, folder=str(folder), answer=str(answer), script=str(script))
    with open(os.open(script, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123 - a path cannot be opened with a mode of rights
        file.write(text)
    return folder


def _send(process: Process, python: Python, folder: Path) -> None:
    """Have its own Python, the only one that knows its insides, ask it to run the script. UserError when it may not."""
    words = [python.executable, "-I", "-S", "-c", _ENTER, str(process.pid), str(folder / "late" / "enter.py")]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"process {process.pid} cannot be entered: {error}", "try again", INCOMPLETE) from error
    if done.returncode == 0:
        return
    why = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
    if "PermissionError" in why or "not permitted" in why:
        raise UserError(
            f"process {process.pid} cannot be entered: this needs the right to trace processes ({why})",
            "attach as root, or in a container started with --cap-add=SYS_PTRACE; "
            "see also /proc/sys/kernel/yama/ptrace_scope",
        )
    raise UserError(
        f"process {process.pid} cannot be entered: {why}", f"start it anew: loadscope run --hold -- {process.shown}"
    )


def _answer(process: Process, folder: Path) -> dict[str, object]:
    file, until = folder / "late" / "answer.json", time.monotonic() + ENTER_SECONDS
    while not file.exists():
        if not Path(f"/proc/{process.pid}").exists():
            raise UserError(f"process {process.pid} ended before it was entered", "attach earlier", INCOMPLETE)
        if time.monotonic() > until:
            raise UserError(
                f"process {process.pid} has run no Python code in its main thread for {ENTER_SECONDS:g} s: it waits in "
                "C code, such as a collective, a read or a kernel",
                f"it is entered as soon as it comes back to Python: loadscope attach {process.pid}",
                INCOMPLETE,
            )
        time.sleep(_REST_SECONDS)
    said = json.loads(file.read_text("utf-8"))
    if not isinstance(said, dict) or "session" not in said:
        why = said.get("error") if isinstance(said, dict) else said
        _note(process).unlink(missing_ok=True)
        shutil.rmtree(folder)
        raise UserError(
            f"process {process.pid} was entered, and stays as it was: {why}",
            f"start it anew: loadscope run --hold -- {process.shown}",
        )
    return said


def _note(process: Process) -> Path:
    """Where it is kept which session a process was entered for: its own environment was written before that."""
    return places.state_folder() / "attached" / f"{process.pid}-{process.begun}"


def _remember(process: Process, folder: Path) -> None:
    note = _note(process)
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(str(folder), encoding="utf-8")


def _earlier(process: Process) -> Path | None:
    try:
        folder = Path(_note(process).read_text("utf-8"))
    except OSError:
        return None
    return folder if (folder / "late" / "answer.json").exists() or (folder / "late" / "enter.py").exists() else None
