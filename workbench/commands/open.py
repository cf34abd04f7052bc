"""`loadscope open`: look at a session in the terminal, while it is being written or long after."""

from __future__ import annotations

import sys
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path

from sessions.manifest import Manifest
from sessions.merging import merge
from workbench import places
from workbench.command import Command
from workbench.errors import CLEAN, UserError


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "sessions", metavar="SESSION", nargs="+", help="a session folder or a bundle; several are opened as one"
    )


def _run(args: Namespace) -> int:
    folders = [places.session_folder(given) for given in args.sessions]
    for folder in folders:
        Manifest.read(folder)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("the screens need a terminal", f"loadscope diagnose {args.sessions[0]}")
    if len(folders) == 1:
        return _look_at(folders[0])
    with tempfile.TemporaryDirectory(prefix="loadscope-merged-") as scratch:
        return _look_at(merge(folders, Path(scratch) / "+".join(one.name for one in folders)[:80]))


def _look_at(folder: Path) -> int:
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
    examples=(
        "loadscope open ./session",
        "loadscope open ./failed.loadscope.zip",
        "loadscope open ./host-a ./host-b      # ranks of two machines, side by side",
    ),
    add_arguments=_add_arguments,
    run=_run,
)
