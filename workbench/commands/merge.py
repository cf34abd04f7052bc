"""`loadscope merge`: several sessions, of ranks or hosts that were recorded apart, as one."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from sessions.merging import merge
from sessions.session import Session
from workbench import arguments, places
from workbench.command import Command
from workbench.errors import CLEAN, UserError


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("sessions", metavar="SESSION", nargs="+", help="session folders or bundles, two or more")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="the new session folder")
    arguments.add_json(parser)


def _run(args: Namespace) -> int:
    target = Path(args.output).absolute()
    if target.exists():
        raise UserError(f"{target} is there already", "name a folder that is not there with -o")
    try:
        merge([places.session_folder(given) for given in args.sessions], target)
    except OSError as error:
        raise UserError(
            f"{target} cannot be written: {error.strerror or error}", "name another folder with -o"
        ) from error
    session = Session.open(target)
    try:
        ranks = sorted({rank for stream in session.streams for rank in stream.ranks() if rank >= 0})
        told = {"session": str(target), "streams": len(session.streams), "events": len(session), "ranks": ranks}
    finally:
        session.close()
    if args.json:
        print(json.dumps({"schema": 1, "verb": args.verb, "outcome": "ok", "exit_code": CLEAN, **told}))
    else:
        named = ", ".join(map(str, ranks)) or "none"
        print(f"merged    {len(args.sessions)} sessions: {told['streams']} streams, {told['events']:,} events")
        print(f"ranks     {named}")
        print(f"next      loadscope open {target}")
    return CLEAN


COMMAND = Command(
    summary="make one session of several, recorded by rank or by host",
    examples=(
        "loadscope merge ./rank0 ./rank1 -o ./both && loadscope open ./both",
        "loadscope merge host-a.loadscope.zip host-b.loadscope.zip -o ./both",
    ),
    add_arguments=_add_arguments,
    run=_run,
)
