"""The token that a host wants to hear: from the environment, a file or a hidden prompt, never from the command line."""

from __future__ import annotations

import getpass
import json
import os
import sys
from pathlib import Path

from workbench.errors import UserError

VARIABLE = "LOADSCOPE_TOKEN"
MOST_BYTES = 4096
WHERE = "it is in control/PID.json of the session folder, on the host's machine"


def token_of(address: str, file: str | None) -> str:
    """The token; raises UserError (exit 2) when there is none to be had."""
    if file is not None:
        return _of_file(Path(file))
    given = os.environ.get(VARIABLE, "").strip()
    if given:
        return given
    if not sys.stdin.isatty():
        raise UserError(
            f"the host at {address} wants its token; {WHERE}", f"set {VARIABLE}, or name a file: --token-file FILE"
        )
    said = getpass.getpass(f"token of the host at {address} ({WHERE}): ").strip()
    if not said:
        raise UserError("no token was given", f"{WHERE[0].upper()}{WHERE[1:]}")
    return said


def _of_file(path: Path) -> str:
    """A file that holds the token, or the host's own note with the token in it."""
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES).decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the token cannot be read from {path}: {error}", "copy the host's control/PID.json") from error
    try:
        said = json.loads(text)
    except ValueError:
        return text
    token = said.get("token") if isinstance(said, dict) else said
    if not token:
        raise UserError(f"{path} holds no token", "give a file with the token alone, or the host's control/PID.json")
    return str(token)
