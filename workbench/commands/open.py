"""`loadscope open`: look at a session in the terminal, while it is being written or long after."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from sessions.manifest import Manifest
from workbench import places
from workbench.command import Command
from workbench.errors import CLEAN, UserError


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("session", metavar="SESSION", help="a session folder or a bundle")


def _run(args: Namespace) -> int:
    folder = places.session_folder(args.session)
    Manifest.read(folder)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("the screens need a terminal", f"loadscope diagnose {args.session}")
    from workbench.replay.onscreen import Replays
    from workbench.tui.app import open_session

    replays = Replays()
    try:
        open_session(folder, replays.replay)
    finally:
        replays.end()
    return CLEAN


COMMAND = Command(
    summary="open a session in the terminal",
    examples=("loadscope open ./session", "loadscope open ./failed.loadscope.zip"),
    add_arguments=_add_arguments,
    run=_run,
)
