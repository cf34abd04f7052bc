"""Options that several verbs share, so that they are spelled and explained alike."""

from __future__ import annotations

import difflib
from argparse import ArgumentParser, ArgumentTypeError, Namespace

from backends.devices.limits import LIMITS
from inspectors.probe import loopback
from inspectors.probe.recorder import DEFAULT_MAX_EVENTS
from workbench import plugins
from workbench.diagnosis.finding import SEVERITIES
from workbench.errors import UserError
from workbench.launching import DEFAULT_LEVEL, Watch
from workbench.outcome import NEVER

DEFAULT_HOLD_S = 600.0
LEVELS = ("calls", "ledger", "values", "tensors")


def add_json(parser: ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output, nothing else")


def add_device(parser: ArgumentParser) -> None:
    """`--device`."""
    known = ", ".join(plugins.names(plugins.DEVICES))
    parser.add_argument("--device", default="cpu", metavar="NAME", help=f"what it runs on: {known} (default: cpu)")


def add_limits(parser: ArgumentParser) -> None:
    """`--limits`."""
    parser.add_argument(
        "--limits",
        metavar="NAME",
        type=limits_named,
        help=f"judge every launch by the limits of this device, which need not be here: {', '.join(LIMITS)}",
    )


def limits_named(name: str) -> str:
    """A name among the limits that are known; raises ArgumentTypeError with the nearest."""
    if name in LIMITS:
        return name
    near = difflib.get_close_matches(name, LIMITS, n=1, cutoff=0.4)
    meant = f"did you mean {near[0]}? " if near else ""
    raise ArgumentTypeError(f"no device's limits are called {name!r}: {meant}Known: {', '.join(LIMITS)}")


def loopback_address(text: str) -> str:
    """HOST:PORT of this machine alone. Raises UserError (exit 2) for an address that others could reach."""
    try:
        return loopback.shown(*loopback.parse(text))
    except loopback.AddressError as error:
        raise UserError(
            f"--listen {text}: {error}", "--listen 127.0.0.1:5678; from elsewhere forward that port, as ssh -L does"
        ) from error


def add_fail_on(parser: ArgumentParser) -> None:
    """`--fail-on`."""
    parser.add_argument(
        "--fail-on",
        choices=(*SEVERITIES, NEVER),
        default="error",
        help="the least severity of a finding that gives exit code 1 (default: error)",
    )


def add_watching(parser: ArgumentParser) -> None:
    """How a host is watched: output folder, level, caps, pausing."""
    parser.add_argument("-o", "--output", metavar="DIR", help="write the session to this new folder")
    parser.add_argument(
        "--level",
        choices=LEVELS,
        default=DEFAULT_LEVEL,
        help="calls: names, shapes, times; ledger: + where every element came from (default); values: + statistics; "
        "tensors: + what goes through the modules",
    )
    parser.add_argument(
        "--max-events", type=int, default=DEFAULT_MAX_EVENTS, metavar="N", help="keep at most N events a process"
    )
    parser.add_argument(
        "--hold", type=float, nargs="?", const=DEFAULT_HOLD_S, default=0.0, metavar="SECONDS",
        help=f"a failing host waits at its exception for `loadscope attach` (default: {DEFAULT_HOLD_S:g} s)",
    )  # fmt: skip
    parser.add_argument(
        "--listen", metavar="HOST:PORT", type=loopback_address,
        help="each process of the host listens on this loopback port as well (0: any), for `attach HOST:PORT`",
    )  # fmt: skip
    parser.add_argument("-v", "--verbose", action="store_true", help="repeat what the host prints on standard error")


def add_stepping(parser: ArgumentParser) -> None:
    """Starting paused, for the terminal screens."""
    parser.add_argument("--paused", action="store_true", help="stop at the first call and step from there")
    parser.add_argument(
        "-b", "--break", dest="breakpoints", action="append", default=[], metavar="FILTER",
        help="stop where this filter holds, such as 'parameter ~ \"*in_proj*\"', exception or decision (repeatable)",
    )  # fmt: skip


def watch_of(args: Namespace) -> Watch:
    """The parsed options of `add_watching` (and `add_stepping`, where the verb has it)."""
    breakpoints = tuple(getattr(args, "breakpoints", ()))
    return Watch(
        verb=args.verb,
        level=args.level,
        output=args.output,
        is_paused_at_start=bool(getattr(args, "paused", False)),
        breakpoints=breakpoints,
        max_events=args.max_events,
        echoes_log=args.verbose,
        hold_s=args.hold,
        listen=args.listen or "",
        limits=getattr(args, "limits", None) or "",
    )
