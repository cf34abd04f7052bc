"""The command line: finds the verb's file, parses, runs it, and turns every error into two lines and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import NoReturn

from sessions.errors import SessionError
from workbench import places, plugins
from workbench.command import Command
from workbench.errors import INCOMPLETE, UserError, internal, tell

EPILOG = """\
exit codes: 0 clean · 1 findings · 2 usage · 3 internal · 4 the host failed · 5 incomplete or unsupported
Without a verb, on a terminal, the start screen opens."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message, f"{self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code of the process."""
    words = list(sys.argv[1:] if argv is None else argv)
    words, host_command = _split_host_command(words)
    verb = next((word for word in words if not word.startswith("-")), "")
    is_json = "--json" in words
    try:
        return _dispatch(words, host_command)
    except UserError as error:
        return tell(error, verb, is_json)
    except SessionError as error:
        return tell(UserError(error.what, error.try_, INCOMPLETE), verb, is_json)
    except BrokenPipeError:
        # The reader of our output left; what follows must not fail once more while Python flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return tell(
            UserError("interrupted", "run it again; a session begun before stays readable", INCOMPLETE), verb, is_json
        )
    except Exception as error:  # noqa: BLE001 the one place where a fault of ours becomes two lines and exit code 3
        return tell(internal(error, places.state_folder()), verb, is_json)


def distribution_version() -> str:
    """The version of the installed distribution, or "source" when run from a checkout."""
    try:
        return version("loadscope")
    except PackageNotFoundError:
        return "source"


def _dispatch(words: list[str], host_command: list[str]) -> int:
    if not words:
        return _start_screen()
    args = _parser(words).parse_args(words)
    args.host_command = host_command
    command: Command = args.command
    return command.run(args)


def _split_host_command(words: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


def _parser(words: list[str]) -> _Parser:
    top = _Parser(
        prog="loadscope",
        description="Watch a quantized checkpoint being loaded, and see why a load failed.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"loadscope {distribution_version()}")
    verbs = top.add_subparsers(metavar="VERB", required=True, title="verbs")
    known = plugins.names(plugins.VERBS)
    if not words[0].startswith("-") and words[0] not in known:
        plugins.module_name(plugins.VERBS, words[0])
    wanted = [words[0]] if words[0] in known else known
    for name in wanted:
        command = plugins.load(plugins.VERBS, name)
        if isinstance(command, Command):
            _add_verb(verbs, name, command)
    return top


def _add_verb(verbs: argparse._SubParsersAction[_Parser], name: str, command: Command) -> None:
    parser = verbs.add_parser(
        name,
        help=command.summary,
        description=command.summary,
        epilog="examples:\n" + "\n".join(f"  {line}" for line in command.examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    parser.set_defaults(command=command, verb=name)


def _start_screen() -> int:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("no verb was given, and this is not a terminal for the start screen", "loadscope --help")
    from workbench.start import open_start

    return open_start()


if __name__ == "__main__":
    sys.exit(main())
