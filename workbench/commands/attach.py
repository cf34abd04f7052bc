"""`loadscope attach`: look at a host that waits at its exception, or runs, from another terminal."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from sessions.control import Control
from sessions.ranks import Onlooker
from workbench import arguments, places
from workbench.attaching import late, remote
from workbench.attaching.process import Process, process_of
from workbench.attaching.told import tell
from workbench.command import Command
from workbench.errors import CLEAN, INCOMPLETE, UserError
from workbench.launching import DEFAULT_LEVEL


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "host", metavar="SESSION|HOST:PORT|PID",
        help="a session folder, the port of a host that was started with --listen, or the id of a process",
    )  # fmt: skip
    parser.add_argument("--release", action="store_true", help="let all hosts that wait go on")
    parser.add_argument("--stacks", action="store_true", help="print what every thread of every host does")
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="with HOST:PORT: a file with the token (else LOADSCOPE_TOKEN, or it is asked for)",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help="write the session, copied or new, to this folder (else to the state folder)",
    )
    late_ = parser.add_argument_group("with the PID of a process that was not started under Loadscope")
    late_.add_argument("--level", choices=arguments.LEVELS, default=DEFAULT_LEVEL, help="what is recorded from then on")
    late_.add_argument(
        "--hold", type=float, nargs="?", const=arguments.DEFAULT_HOLD_S, default=0.0, metavar="SECONDS",
        help="let it wait at an exception from then on",
    )  # fmt: skip
    late_.add_argument(
        "--engine", action="append", default=[], metavar="NAME", help="an engine to expect (default: all)"
    )
    late_.add_argument(
        "--adapter", action="append", default=[], metavar="MODULE", help="a module with an ENGINE of your own"
    )
    arguments.add_json(parser)


def _run(args: Namespace) -> int:
    if remote.is_address(args.host):
        return remote.attach(args)
    if args.host.isdigit():
        return _attach_process(process_of(int(args.host)), args)
    folder = places.session_folder(args.host)
    control = Onlooker.connect(folder)
    if control is None:
        raise _nobody(folder)
    return _look(folder, control, args)


def _attach_process(process: Process, args: Namespace) -> int:
    """A process that records: into the session it was started with, or one that begins now."""
    if not process.session:
        folder, engines = late.session_of(process, args)
        if not args.json:
            known = f"it has {', '.join(engines)}" if engines else "it has imported no engine yet"
            print(f"attached to process {process.pid}, {known}; recording into {folder}", file=sys.stderr)
        return _look(folder, Onlooker.connect(folder, process.pid), args)
    folder = Path(process.session)
    control = Onlooker.connect(folder, process.pid)
    if control is None:
        control = Onlooker.connect(folder)
        if control is None:
            raise _nobody(folder)
        print(
            f"process {process.pid} does not answer: it has come to no watched call yet; "
            f"this is process {control.pid} of the same session",
            file=sys.stderr,
        )
    return _look(folder, control, args)


def _nobody(folder: Path) -> UserError:
    return UserError(
        f"{folder}: no host of this session answers: it has ended, or has not imported an engine yet",
        f"loadscope open {folder}",
        INCOMPLETE,
    )


def _look(folder: Path, control: Control | None, args: Namespace) -> int:
    if sys.stdin.isatty() and sys.stdout.isatty() and not (args.json or args.release or args.stacks):
        if control is not None:
            control.close()
        from workbench.tui.app import open_session

        open_session(folder)
        return CLEAN
    if control is None:
        tell(None, folder, args)
        return CLEAN
    with control:
        tell(control, folder, args)
    return CLEAN


COMMAND = Command(
    summary="look at a host that waits at its exception, or runs",
    examples=(
        "loadscope run --hold -- python serve.py        # in one terminal",
        "loadscope attach ./session                     # in another",
        "loadscope attach 4711 --stacks",
        "loadscope attach ./session --release",
        "loadscope attach 127.0.0.1:5678                # a host of loadscope run --listen, also behind ssh -L",
        "loadscope attach 4711 --level calls            # a Python 3.14 that was started without Loadscope",
    ),
    add_arguments=_add_arguments,
    run=_run,
)
