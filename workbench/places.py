"""Where things are kept: sessions in LOADSCOPE_DIR or the state folder, demo checkpoints in the cache folder."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from sessions.bundle.unpacking import is_bundle, unpack
from workbench.errors import UserError


def _xdg(variable: str, fallback: str) -> Path:
    given = Path(os.environ.get(variable, ""))
    return given if given.is_absolute() else Path.home() / fallback


def state_folder() -> Path:
    """The folder for what a person may want to keep (XDG state)."""
    return _xdg("XDG_STATE_HOME", ".local/state") / "loadscope"


def cache_folder() -> Path:
    """The folder for what can be made again (XDG cache)."""
    return _xdg("XDG_CACHE_HOME", ".cache") / "loadscope"


def sessions_folder() -> Path:
    """The folder in which new sessions are made: LOADSCOPE_DIR (`%p` is the process id), else the state folder."""
    given = os.environ.get("LOADSCOPE_DIR", "")
    return Path(given.replace("%p", str(os.getpid()))).absolute() if given else state_folder() / "sessions"


def session_folder(given: str) -> Path:
    """The session that a person named: its folder, or that of a bundle, unpacked into the cache.

    Raises SessionError for a file that is no bundle; whether a folder is a session is left to who opens it.
    """
    path = Path(given).absolute()
    return unpack(path, cache_folder() / "bundles") if is_bundle(path) else path


def new_session_folder(verb: str, name: str, wanted: str | None = None) -> Path:
    """Create an empty folder for a session, `wanted` if given, and return its absolute path.

    Raises UserError (exit 2) when `wanted` holds something already or the place cannot be written to.
    """
    if wanted is not None:
        return _claim(Path(wanted).absolute())
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60] or "session"
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{verb}-{plain}"
    folder, number = sessions_folder() / stem, 1
    while folder.exists():
        number += 1
        folder = sessions_folder() / f"{stem}-{number}"
    return _claim(folder)


def _claim(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(
                f"{folder} is not empty: a session needs a folder of its own",
                "name another folder with -o, or remove it",
            )
        probe = folder / "streams"
        probe.mkdir()
    except OSError as error:
        raise UserError(
            f"no session can be written to {folder}: {error.strerror or error}",
            "name a writable folder with -o DIR, or set LOADSCOPE_DIR to one",
        ) from error
    return folder
