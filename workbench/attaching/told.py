"""What `attach` says of a host without screens: its state, the call at which it failed, its threads."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from sessions.control import Control, ControlError
from sessions.session import Session
from workbench.allhosts import host_lines, hosts_told
from workbench.errors import CLEAN, INCOMPLETE, UserError
from workbench.failing import failing_call

Facts = dict[str, object]


def tell(control: Control | None, folder: Path | None, args: Namespace, next_: str = "") -> None:
    """Print it, and do with the host what was asked for. `folder` is None where its session is not on this machine.

    `control` is None for a host that has no engine yet, and so does not listen.
    """
    try:
        said = _facts(control, folder, args)
    except ControlError as error:
        raise UserError(
            f"{folder or 'the host'}: {error}", f"loadscope open {folder or 'SESSION'}", INCOMPLETE
        ) from error
    next_ = next_ or f"loadscope attach {folder}, on a terminal"
    print(json.dumps(said, ensure_ascii=False) if args.json else "\n".join([*_lines(said), f"next      {next_}"]))


def _facts(control: Control | None, folder: Path | None, args: Namespace) -> Facts:
    state = control.state() if control is not None else {"state": "running", "why": ""}
    said: Facts = {
        "schema": 1, "verb": "attach", "outcome": "ok", "exit_code": CLEAN,
        "session": str(folder) if folder is not None else None, "pid": control.pid if control is not None else None,
        "state": state["state"], "why": state["why"],
    }  # fmt: skip
    if folder is not None:
        said["failing_call"] = _failing(folder)
        said |= hosts_told(folder, wants_stacks=args.stacks, releases=args.release)
    if control is None:
        return said
    if args.stacks:
        said["threads"] = [{"name": name, "frames": frames} for name, frames in control.stacks()]
    if args.release:
        control.release()
        said |= {"state": "running", "why": ""}
    return said


def _failing(folder: Path) -> list[str]:
    session = Session.open(folder)
    try:
        failing = failing_call(session)
        return failing.lines if failing is not None else []
    finally:
        session.close()


def _lines(said: Facts) -> list[str]:
    why = f" at {said['why']}" if said["state"] == "paused" and said["why"] else ""
    who = f"process {said['pid']}" if said["pid"] is not None else "no engine yet"
    lines = [f"host      {who}, {said['state']}{why}"]
    failing, threads, others = said.get("failing_call"), said.get("threads", []), host_lines(said)
    lines += [f"          {line}" for line in failing] if isinstance(failing, list) else []
    for thread in threads if isinstance(threads, list) and not others else []:
        lines += [f"thread    {thread['name']}", *(f"          {frame}" for frame in thread["frames"])]
    return [*lines, *others, *([f"session   {said['session']}"] if said["session"] else [])]
