"""`loadscope attach`: look at a host that waits at its exception, or runs, from another terminal."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from sessions.control import Control, ControlError
from sessions.session import Session
from workbench import arguments, places
from workbench.command import Command
from workbench.errors import CLEAN, INCOMPLETE, UserError
from workbench.failing import failing_call


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("host", metavar="SESSION|PID", help="a session folder, or the id of a process of the host")
    parser.add_argument("--release", action="store_true", help="let a host that waits go on")
    parser.add_argument("--stacks", action="store_true", help="print what every thread of the host does")
    arguments.add_json(parser)


def _run(args: Namespace) -> int:
    folder = _folder_of_process(int(args.host)) if args.host.isdigit() else places.session_folder(args.host)
    control = Control.connect(folder)
    if control is None:
        raise UserError(
            f"{folder}: no host of this session answers: it has ended, or has not imported an engine yet",
            f"loadscope open {folder}",
            INCOMPLETE,
        )
    if sys.stdin.isatty() and sys.stdout.isatty() and not (args.json or args.release or args.stacks):
        control.close()
        from workbench.tui.app import open_session

        open_session(folder)
        return CLEAN
    with control:
        try:
            said = _told(control, folder, args)
        except ControlError as error:
            raise UserError(f"{folder}: {error}", f"loadscope open {folder}", INCOMPLETE) from error
    print(json.dumps(said, ensure_ascii=False) if args.json else "\n".join(_lines(said)))
    return CLEAN


def _told(control: Control, folder: Path, args: Namespace) -> dict[str, object]:
    state = control.state()
    session = Session.open(folder)
    try:
        failing = failing_call(session)
    finally:
        session.close()
    said: dict[str, object] = {
        "schema": 1, "verb": "attach", "outcome": "ok", "exit_code": CLEAN, "session": str(folder), "pid": control.pid,
        "state": state["state"], "why": state["why"], "failing_call": failing.lines if failing is not None else [],
    }  # fmt: skip
    if args.stacks:
        said["threads"] = [{"name": name, "frames": frames} for name, frames in control.stacks()]
    if args.release:
        control.release()
        said["state"] = "running"
    return said


def _lines(said: dict[str, object]) -> list[str]:
    why = f" at {said['why']}" if said["state"] == "paused" and said["why"] else ""
    lines = [f"host      process {said['pid']}, {said['state']}{why}"]
    failing, threads = said["failing_call"], said.get("threads", [])
    lines += [f"          {line}" for line in failing] if isinstance(failing, list) else []
    for thread in threads if isinstance(threads, list) else []:
        lines += [f"thread    {thread['name']}", *(f"          {frame}" for frame in thread["frames"])]
    return [*lines, f"next      loadscope attach {said['session']}, on a terminal"]


def _folder_of_process(pid: int) -> Path:
    """The session that a process records into, told by its environment. UserError for one that records none."""
    try:
        data = Path(f"/proc/{pid}/environ").read_bytes()
    except PermissionError as error:
        raise UserError(f"process {pid} belongs to another user", "attach as that user, or name the session") from error
    except OSError as error:
        raise UserError(f"there is no process {pid}", "name the session folder instead") from error
    variables = dict(pair.partition("=")[::2] for pair in os.fsdecode(data).split("\0") if "=" in pair)
    folder = variables.get("LOADSCOPE_SESSION")
    if folder is None:
        command = os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).replace("\0", " ").strip()
        raise UserError(
            f"process {pid} was not started under Loadscope, and what it has loaded so far can never be told",
            f"start it anew: loadscope run --hold -- {command or 'CMD'}",
        )
    return Path(folder)


COMMAND = Command(
    summary="look at a host that waits at its exception, or runs",
    examples=(
        "loadscope run --hold -- python serve.py        # in one terminal",
        "loadscope attach ./session                     # in another",
        "loadscope attach 4711 --stacks",
        "loadscope attach ./session --release",
    ),
    add_arguments=_add_arguments,
    run=_run,
)
