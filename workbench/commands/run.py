"""`loadscope run -- CMD`: run any command with the probe armed in it and in its children."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace

from workbench import arguments, arming, keeping, launching, plugins
from workbench.command import Command
from workbench.ending import follow
from workbench.errors import INCOMPLETE, UserError


def _add_arguments(parser: ArgumentParser) -> None:
    parser.usage = f"{parser.prog} [options] -- CMD…"
    parser.add_argument(
        "--engine", action="append", default=[], metavar="NAME", help="an engine to expect (repeatable; default: all)"
    )
    parser.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module with an ENGINE of your own, importable in the host when it starts (repeatable)",
    )
    arguments.add_watching(parser)
    keeping.add_keeping(parser)
    arguments.add_limits(parser)
    arguments.add_stepping(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="do not repeat what the host prints")
    arguments.add_fail_on(parser)
    arguments.add_json(parser)


def _run(args: Namespace) -> int:
    if not args.host_command:
        raise UserError("no command was given", "loadscope run -- python serve.py")
    python = args.host_command[0]
    if not arming.arms(python):
        raise UserError(
            f"the Python of {python} has no {arming.PTH_NAME}, so the command cannot be armed",
            "pip install --no-deps loadscope, in the environment of the command (loadscope trace works without)",
            INCOMPLETE,
        )
    args.verbose = args.verbose or not args.quiet
    modules = plugins.engine_modules(args.engine, args.adapter)
    watch = replace(arguments.watch_of(args), timeout_s=args.timeout)
    return follow(launching.host_of_command(tuple(args.host_command), modules, watch), args)


COMMAND = Command(
    summary="run a command with the probe armed in it and in its children",
    examples=(
        "loadscope run -- python serve.py --model ./model",
        "loadscope run -o ./session --level calls -- pytest -k test_load",
        "loadscope run --on failure --timeout 600 -- python -m pytest tests/test_load.py",
        "loadscope run --adapter my_project.adapter -- python -m my_project",
    ),
    add_arguments=_add_arguments,
    run=_run,
)
