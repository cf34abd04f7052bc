"""How a verb that ran a host ends: it judges the session, tells the verdict and opens the screens on a terminal."""

from __future__ import annotations

import json
import re
import sys
import threading
from argparse import Namespace
from pathlib import Path

from sessions.bundle.layout import STACKS
from sessions.liveness import is_running
from sessions.session import Session
from workbench.errors import HOST_FAILED, INCOMPLETE, UserError, tell
from workbench.failing import failing_call
from workbench.host import Host
from workbench.keeping import Bundle, keep
from workbench.outcome import Verdict, holds_observations, verdict_of
from workbench.report import report

LOG_LINES = 40
_RAISED = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)(:|$)")


def follow(host: Host, args: Namespace) -> int:
    """Start the host, wait for its end and tell what came of it; returns the exit code."""
    if _wants_screens(args) and _stops(host):
        return _step_through(host, args)
    if _stops(host):
        print(f"the host will stop and wait; step through it with: loadscope open {host.folder}", file=sys.stderr)
    elif host.manifest.extra.get("hold_seconds"):
        print(f"a failing host will wait; look at it then with: loadscope attach {host.folder}", file=sys.stderr)
    elif not args.json and sys.stderr.isatty():
        print(f"recording into {host.folder}", file=sys.stderr)
    host.start()
    bundle = keep(host.folder, host.wait(), args)
    code = conclude(host.folder, args, has_just_run=True, bundle=bundle)
    if _wants_screens(args):
        from workbench.tui.app import open_session

        open_session(host.folder)
    return code


def conclude(
    folder: Path, args: Namespace, *, has_just_run: bool, bundle: Bundle | None = None, named: str = ""
) -> int:
    """Tell the verdict of a session, which the person calls `named`, as JSON or as text; returns the exit code."""
    session = Session.open(folder)
    try:
        verdict = verdict_of(
            session,
            args.verb,
            fail_on=getattr(args, "fail_on", "error"),
            has_just_run=has_just_run,
            limits=getattr(args, "limits", None) or "",
        )
        if args.json:
            said = verdict.as_json() | ({"bundle": str(bundle.path)} if bundle is not None else {})
            print(json.dumps(said, ensure_ascii=False))
        else:
            print("\n".join(report(session, verdict, named, bundle)))
        if has_just_run:
            _explain(session, verdict)
    finally:
        session.close()
    return verdict.exit_code


def _step_through(host: Host, args: Namespace) -> int:
    from workbench.tui.app import open_session

    host.start()
    waiting = threading.Thread(target=host.wait, name="loadscope-host", daemon=True)
    waiting.start()
    open_session(host.folder)
    if host.is_running():
        host.interrupt()
    waiting.join()
    return conclude(host.folder, args, has_just_run=True)


def _stops(host: Host) -> bool:
    return host.manifest.is_paused_at_start or bool(host.manifest.breakpoints)


def _wants_screens(args: Namespace) -> bool:
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    return is_terminal and not args.json and not getattr(args, "no_tui", True)


def _explain(session: Session, verdict: Verdict) -> None:
    if verdict.exit_code == INCOMPLETE:
        _two_lines(*_why_incomplete(session))
    elif verdict.exit_code == HOST_FAILED:
        _two_lines(f"the host {_how_it_failed(session)}", f"loadscope open {verdict.session}")


def _how_it_failed(session: Session) -> str:
    outcome = session.manifest.outcome
    late = outcome.extra.get("timed_out_after_s") if outcome is not None else None
    if late is not None:
        return f"did not end within {late} s and was stopped; what it was doing is in {session.folder / STACKS}"
    if outcome is not None and outcome.signal:
        return f"was killed by {outcome.signal}"
    failing = failing_call(session)
    why = failing.error if failing is not None else last_log_line(session)
    return f"failed with exit code {outcome.exit_code if outcome is not None else '?'}{f': {why}' if why else ''}"


def _why_incomplete(session: Session) -> tuple[str, str]:
    state = session.manifest.outcome.state if session.manifest.outcome is not None else "running"
    if state == "interrupted":
        return "the load was interrupted; what was recorded until then is readable", f"loadscope open {session.path}"
    if is_running(session):
        return "the host of this session still runs; this is what it did until now", f"loadscope open {session.path}"
    if state == "running" and holds_observations(session):
        return (
            f"nobody recorded how this session ended; its last event is #{len(session):,}",
            f"loadscope open {session.path}",
        )
    missing = [name.rpartition(".")[2] for name in session.manifest.engines]
    return (
        f"nothing was recorded: the host used none of the engines {', '.join(missing)}",
        "check with loadscope doctor that the host's Python has loadscope installed, or name the engine with --engine",
    )


def last_log_line(session: Session) -> str:
    """The exception with which the host's log ends, else its last line that says something; "" without one."""
    count = session.log_count
    lines = [line.text.rstrip() for line in session.log_lines(max(0, count - LOG_LINES), count)]
    said = [line for line in lines if line.strip()]
    raised = (line for line in reversed(said) if _RAISED.match(line))
    return next(raised, said[-1].strip() if said else "")


def _two_lines(what: str, try_: str) -> None:
    tell(UserError(what, try_))
