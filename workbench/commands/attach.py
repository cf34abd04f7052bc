"""`loadscope attach`: look at a host that waits at its exception, or runs, from another terminal."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from sessions.control import Control
from workbench import arguments, places
from workbench.attaching import remote
from workbench.attaching.told import tell
from workbench.command import Command
from workbench.errors import CLEAN, INCOMPLETE, UserError


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "host", metavar="SESSION|HOST:PORT|PID",
        help="a session folder, the port of a host that was started with --listen, or the id of a process",
    )  # fmt: skip
    parser.add_argument("--release", action="store_true", help="let a host that waits go on")
    parser.add_argument("--stacks", action="store_true", help="print what every thread of the host does")
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="with HOST:PORT: a file with the token (else LOADSCOPE_TOKEN, or it is asked for)",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help="with HOST:PORT: copy the session into this folder (else the state folder)",
    )
    arguments.add_json(parser)


def _run(args: Namespace) -> int:
    if remote.is_address(args.host):
        return remote.attach(args)
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
        tell(control, folder, args)
    return CLEAN


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
