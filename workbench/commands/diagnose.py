"""`loadscope diagnose`: say what a recorded session shows to be wrong."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from workbench import arguments, places
from workbench.command import Command
from workbench.ending import conclude


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("session", metavar="SESSION", help="a session folder or a bundle")
    arguments.add_limits(parser)
    arguments.add_fail_on(parser)
    arguments.add_json(parser)


def _run(args: Namespace) -> int:
    return conclude(places.session_folder(args.session), args, has_just_run=False, named=args.session)


COMMAND = Command(
    summary="say what a recorded session shows to be wrong, root causes first",
    examples=(
        "loadscope diagnose ./session",
        "loadscope diagnose ./session --json --fail-on warning",
        "loadscope diagnose ./session --limits ascend-910b     # would its launches run there?",
    ),
    add_arguments=_add_arguments,
    run=_run,
)
