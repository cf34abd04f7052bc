"""Attaching to HOST:PORT: its session is mirrored into a folder here and followed as long as the screens are open."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inspectors.probe import loopback
from sessions.control import Control, ControlError, NotLetInError
from sessions.errors import SessionError
from sessions.mirroring import Mirror, mirrored
from workbench import places
from workbench.attaching.token import WHERE, token_of
from workbench.attaching.told import tell
from workbench.errors import CLEAN, INCOMPLETE, UserError

FOLLOW_SECONDS = 0.5
_TOLD_SECONDS = 0.2
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^/:\[\]]*):[0-9]{1,5}")


def is_address(given: str) -> bool:
    """Whether a word of the command line is HOST:PORT, not a folder."""
    return _ADDRESS.fullmatch(given) is not None and not Path(given).exists()


def attach(args: Namespace) -> int:
    """Attach to `args.host`; returns the exit code. Raises UserError."""
    host, port = _address(args.host)
    shown = loopback.shown(host, port)
    token = token_of(shown, args.token_file)
    control = _connected(host, port, token)
    with control:
        if (args.release or args.stacks) and args.output is None:
            tell(control, None, args, f"loadscope attach {shown}, on a terminal")
            return CLEAN
        try:
            mirror, of = _mirror(control, shown, args.output)
            _first(mirror, is_quiet=args.json)
        except ControlError as error:
            raise _gone(shown, error) from error
        if _wants_screens(args):
            with _note_in(mirror.folder, control.pid, shown, token), _followed(mirror, control, of):
                from workbench.tui.app import open_session

                open_session(mirror.folder)
            return CLEAN
        tell(control, mirror.folder, args, f"loadscope attach {shown}, on a terminal")
    return CLEAN


def _wants_screens(args: Namespace) -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and not (args.json or args.release or args.stacks)


def _address(given: str) -> tuple[str, int]:
    try:
        host, port = loopback.parse(given)
    except loopback.AddressError as error:
        raise UserError(
            f"{error}: the token and what is recorded would pass in the clear",
            "bring the port to this machine: ssh -L 5678:127.0.0.1:5678 MACHINE, or kubectl port-forward POD 5678",
        ) from error
    if not port:
        raise UserError(f"{given} names no port", "the host says on standard error at which port it listens")
    return host, port


def _connected(host: str, port: int, token: str) -> Control:
    shown = loopback.shown(host, port)
    try:
        return Control.at(host, port, token)
    except NotLetInError as error:
        raise UserError(f"the host at {shown} does not let us in: {error}", f"give its own token: {WHERE}") from error
    except OSError as error:
        raise UserError(
            f"no host answers at {shown}: {error.strerror or error}",
            f"start it with loadscope run --listen {shown} -- CMD, and forward the port if it is on another machine",
            INCOMPLETE,
        ) from error


def _gone(shown: str, error: ControlError) -> UserError:
    return UserError(f"the host at {shown} is gone: {error}", "what came until then is in the state folder", INCOMPLETE)


def _mirror(control: Control, shown: str, output: str | None) -> tuple[Mirror, str]:
    """A mirror in the folder asked for, else in one of the session's own; an earlier one of the session goes on."""
    of = Mirror(control, Path(), shown).identity()
    name = hashlib.sha256(of.encode()).hexdigest()[:12] if of else f"{control.pid}-{time.strftime('%H%M%S')}"
    folder = Path(output).absolute() if output is not None else places.sessions_folder() / f"mirror-{name}"
    if not of or mirrored(folder) != of:
        folder = places.new_session_folder("attach", name, str(folder))
    folder.chmod(0o700)
    mirror = Mirror(control, folder, shown)
    mirror.mark(is_followed=False, of=of)
    return mirror, of


def _first(mirror: Mirror, *, is_quiet: bool) -> None:
    """Copy what is there, with progress on a terminal."""
    is_told, last = sys.stderr.isatty() and not is_quiet, 0.0

    def tell_bytes(size: int) -> None:
        nonlocal last
        if is_told and time.monotonic() - last > _TOLD_SECONDS:
            last = time.monotonic()
            print(f"\rcopying the session  {size / 1e6:,.1f} MB", end="", file=sys.stderr, flush=True)

    mirror.pull(tell_bytes)
    if is_told:
        print(f"\rcopied the session  {mirror.bytes / 1e6:,.1f} MB  {mirror.folder}", file=sys.stderr)
    for name, why in mirror.unread.items():
        print(f"loadscope: {name} is left out: {why}", file=sys.stderr)


@contextmanager
def _note_in(folder: Path, pid: int, shown: str, token: str) -> Iterator[None]:
    """While the screens are open, the mirror says how its host is reached, as a session here does."""
    note = folder / "control" / f"{pid}.json"
    note.parent.mkdir(mode=0o700, exist_ok=True)
    with open(os.open(note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123 - a path cannot be opened with a mode of rights
        json.dump({"pid": pid, "tcp": shown, "token": token}, file)
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


@contextmanager
def _followed(mirror: Mirror, control: Control, of: str) -> Iterator[None]:
    """Keep the mirror up to date in a thread until the host ends or the block does."""
    stop = threading.Event()
    mirror.mark(is_followed=True, of=of)

    def run() -> None:
        follow(mirror, control, stop)
        mirror.mark(is_followed=False, of=of)

    thread = threading.Thread(target=run, name="loadscope-mirror", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=10)


def follow(mirror: Mirror, control: Control, stop: threading.Event) -> None:
    """Take what is new, twice a second; the last time when the host says that it ends."""
    try:
        while not stop.is_set():
            state = control.wait(FOLLOW_SECONDS)["state"]
            mirror.pull()
            if state == "ended":
                control.close()  # the host waits for those who take its files
                return
            if state == "paused":
                stop.wait(FOLLOW_SECONDS)
    except (ControlError, SessionError, OSError):
        return  # the mirror ends here; the screens say that the host is gone
