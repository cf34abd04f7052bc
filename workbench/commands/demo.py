"""`loadscope demo`: make a tiny quantized checkpoint, load it on the CPU and show what happened."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from workbench import arguments
from workbench.command import Command
from workbench.demonstration import host_of_scenario
from workbench.ending import follow
from workbench.scenario import default_name


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--scenario", metavar="NAME", help="a planted defect to look at (see loadscope scenarios)")
    parser.add_argument("--tp", type=int, metavar="N", help="tensor parallel size (default: the scenario's)")
    parser.add_argument("--repaired", action="store_true", help="the same load without the planted defect")
    arguments.add_watching(parser)
    arguments.add_stepping(parser)
    arguments.add_fail_on(parser)
    arguments.add_json(parser)
    parser.add_argument("--no-tui", action="store_true", help="print the summary only, also on a terminal")


def _run(args: Namespace) -> int:
    host = host_of_scenario(
        args.scenario or default_name(),
        arguments.watch_of(args),
        tp=args.tp,
        extra=tuple(args.host_command),
        is_repaired=args.repaired,
        is_quiet=args.json,
    )
    return follow(host, args)


COMMAND = Command(
    summary="make a tiny quantized checkpoint, load it on the CPU and look at the load",
    examples=(
        "loadscope demo",
        "loadscope demo --scenario NAME          # a load with a planted defect; loadscope scenarios lists them",
        "loadscope demo --scenario NAME --repaired    # the same checkpoint without the defect",
        "loadscope demo --paused                 # step through the load",
        "loadscope demo --json --no-tui",
    ),
    add_arguments=_add_arguments,
    run=_run,
)
