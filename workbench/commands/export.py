"""`loadscope export`: write a session in another format."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import cast

from sessions.session import Session
from workbench import places, plugins
from workbench.command import Command
from workbench.errors import CLEAN, UserError


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("session", metavar="SESSION", help="a session folder or a bundle")
    parser.add_argument("--format", required=True, help=f"one of: {', '.join(plugins.names(plugins.EXPORTS))}")
    parser.add_argument("-o", "--output", metavar="FILE", help="write here (default: standard output)")


def _run(args: Namespace) -> int:
    write = cast("Callable[[Session, object], object]", plugins.load(plugins.EXPORTS, args.format))
    session = Session.open(places.session_folder(args.session))
    try:
        write(session, Path(args.output) if args.output else sys.stdout)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise UserError(
            f"{error.filename or args.output} cannot be written: {error.strerror}", "name another file with -o"
        ) from error
    finally:
        session.close()
    return CLEAN


COMMAND = Command(
    summary="write a session as JSON lines or as a trace for Perfetto",
    examples=(
        "loadscope export ./session --format jsonl | head",
        "loadscope export ./session --format perfetto -o trace.json",
    ),
    add_arguments=_add_arguments,
    run=_run,
)
