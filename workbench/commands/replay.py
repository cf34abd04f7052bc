"""`loadscope replay`: do a recorded load again and report the first event that differs, or that none does."""

from __future__ import annotations

import json
import shutil
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from sessions.alignment import Alignment, align
from sessions.session import Session
from workbench import arguments, places
from workbench.command import Command
from workbench.errors import UserError
from workbench.replay.again import Asked, again
from workbench.replay.running import bar, run
from workbench.replay.told import Side, as_json, exit_code, lines

TWO_RECORDINGS = Side("first", "second", "in the first recording", "in the second recording")


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("session", metavar="SESSION", help="a session folder, of a load that ended well or failed")
    parser.add_argument("--model", metavar="PATH", help="where the recorded checkpoint is now; it must be the same one")
    parser.add_argument(
        "--level", choices=arguments.LEVELS, help="record the replay at this level (default: that of the recording)"
    )
    parser.add_argument(
        "--keep", metavar="DIR", help="write the replay to this new folder (default: it is kept when something differs)"
    )
    parser.add_argument("--against", metavar="OTHER", help="run nothing: compare with this other recording")
    parser.add_argument("--python", metavar="PATH", help="the Python of the engine's own environment")
    parser.add_argument(
        "--run", action="store_true", help="execute the command that the session names, of loadscope run -- CMD"
    )
    parser.add_argument("--timeout", type=_seconds, metavar="S", help="interrupt the replay after so many seconds")
    parser.add_argument("-v", "--verbose", action="store_true", help="repeat what the host prints on standard error")
    arguments.add_json(parser)
    parser.epilog = (
        f"{parser.epilog}\n\nexit codes: 0 no event differs · 1 one does, or the host ended otherwise · "
        "2 usage, or --run is needed · 4 the host cannot be started · 5 it could not be replayed: "
        "no or another checkpoint, interrupted, timed out"
    )


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise ValueError(text)
    return seconds


def _run(args: Namespace) -> int:
    recorded = Session.open(places.session_folder(args.session))
    try:
        if args.against:
            other = Session.open(places.session_folder(args.against))
            try:
                return _tell(align(recorded, other, args.level), [], TWO_RECORDINGS, args, other.folder)
            finally:
                other.close()
        return _replay(recorded, args)
    finally:
        recorded.close()


def _replay(recorded: Session, args: Namespace) -> int:
    if not len(recorded):
        raise UserError(f"{recorded.folder} holds no events to compare with", "record the load again", 5)
    asked = Asked(
        model=Path(args.model).absolute() if args.model else None,
        python=args.python or "",
        level=args.level or "",
        output=args.keep,
        may_run=args.run,
        echoes_log=args.verbose,
    )
    made = again(recorded, asked)
    with bar("replaying", is_quiet=args.json or args.verbose) as progress:
        run(made.host, len(recorded), progress, args.timeout)
    replayed = Session.open(made.host.folder)
    try:
        found = align(recorded, replayed)
        is_kept = bool(args.keep) or not found.is_alike
        code = _tell(found, made.notes, Side(), args, made.host.folder if is_kept else None)
    finally:
        replayed.close()
    if not is_kept:
        shutil.rmtree(made.host.folder, ignore_errors=True)
    return code


def _tell(found: Alignment, notes: list[str], side: Side, args: Namespace, kept: Path | None) -> int:
    if args.json:
        print(json.dumps(as_json(found, args.verb, notes, kept), ensure_ascii=False))
    else:
        print("\n".join(lines(found, notes, side)))
        if kept is not None:
            print(f"{'session':<10}{kept}\n{'next':<10}loadscope open {kept}")
        sys.stdout.flush()
    return exit_code(found)


COMMAND = Command(
    summary="do a recorded load again and report the first event that differs",
    examples=(
        "loadscope replay ./session",
        "loadscope replay ./session --model /elsewhere/model --timeout 600 --json",
        "loadscope replay ./session --level calls --keep ./again",
        "loadscope replay ./session --against ./other     # two recordings, nothing is run",
        "loadscope replay ./session --run                 # of loadscope run -- CMD: executes the recorded CMD",
    ),
    add_arguments=_add_arguments,
    run=_run,
)
