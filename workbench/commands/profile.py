"""`loadscope profile`: say where the time and the memory of a load and its forward passes went."""

from __future__ import annotations

import json
import shutil
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

from sessions.liveness import has_no_recorded_end
from sessions.session import Session
from workbench import arguments, places, plugins
from workbench.command import Command
from workbench.errors import CLEAN, INCOMPLETE, UserError
from workbench.profile.profile import TABLES, Profile, require_recorded
from workbench.profile.telling import told


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise ArgumentTypeError(f"{text!r} is not a number of rows")
    return int(text)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("session", metavar="SESSION", help="a session folder or a bundle")
    parser.add_argument("--by", choices=TABLES, help="one table only (default: all, the longest rows of each)")
    parser.add_argument("--rank", type=int, metavar="R", help="this rank alone, with its waiting for the others")
    parser.add_argument("--top", type=_positive, metavar="N", help="show N rows of a table")
    parser.add_argument("--flame", metavar="FILE.html", help="write the blocks of time as a page for a browser")
    for name in plugins.names(plugins.EXPORTS):
        parser.add_argument(f"--{name}", metavar="FILE", help=f"write the session in the export format {name}, too")
    arguments.add_json(parser)


def _run(args: Namespace) -> int:
    session = Session.open(places.session_folder(args.session))
    try:
        profile = Profile(session, args.rank)
        require_recorded(profile, args.by)
        written = [*_flame(args, profile), *_exports(args, session)]
        code = INCOMPLETE if has_no_recorded_end(session) and not session.is_complete else CLEAN
        if args.json:
            from workbench.profile.said import as_json

            print(json.dumps(as_json(profile, args.verb, code, args.by, args.top, written), ensure_ascii=False))
        else:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
            lines = told(profile, args.by, args.top, width)
            print("\n".join([*lines, *(f"written   {path}" for path in written)]))
    finally:
        session.close()
    return code


def _flame(args: Namespace, profile: Profile) -> list[str]:
    if not args.flame:
        return []
    from workbench.profile.page import page

    text = page(profile)
    return [_written(args.flame, "--flame", lambda path: path.write_text(text, encoding="utf-8"))]


def _exports(args: Namespace, session: Session) -> list[str]:
    out = []
    for name in plugins.names(plugins.EXPORTS):
        file = getattr(args, name.replace("-", "_"))
        if file:
            export = cast("Callable[[Session, Path], object]", plugins.load(plugins.EXPORTS, name))
            out.append(_written(file, f"--{name}", partial(export, session)))
    return out


def _written(name: str, option: str, write: Callable[[Path], object]) -> str:
    path = Path(name).absolute()
    try:
        write(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}", f"name another file with {option}"
        ) from error
    return str(path)


COMMAND = Command(
    summary="say where time and memory of a load and its forward passes went",
    examples=(
        "loadscope profile ./session",
        "loadscope profile ./session --by parameter --top 20",
        "loadscope profile ./session --by kernel --rank 0",
        "loadscope profile ./session --flame time.html --perfetto trace.json",
        "loadscope profile ./session --json",
    ),
    add_arguments=_add_arguments,
    run=_run,
)
