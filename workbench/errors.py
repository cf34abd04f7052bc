"""What can go wrong for a person: one exception class, the exit codes, and the one place that prints an error."""

from __future__ import annotations

import json
import sys
import time
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CLEAN = 0
FINDINGS = 1
USAGE = 2
INTERNAL = 3
HOST_FAILED = 4
INCOMPLETE = 5


class UserError(Exception):
    """An error told in two lines: `what` happened, with names, and what to `try_`; `exit_code` is the process's."""

    def __init__(self, what: str, try_: str, exit_code: int = USAGE) -> None:
        super().__init__(what)
        self.what, self.try_, self.exit_code = what, try_, exit_code


def tell(error: UserError, verb: str = "", is_json: bool = False) -> int:
    """Print an error as two lines on standard error (with `is_json` also as an object on standard output).

    Returns the exit code.
    """
    print(f"loadscope: {_one_line(error.what)}", file=sys.stderr)
    print(f"try: {_one_line(error.try_)}", file=sys.stderr)
    if is_json:
        print(json.dumps(_as_json(error, verb)))
    return error.exit_code


def internal(error: BaseException, folder: Path) -> UserError:
    """A fault of the workbench itself: its traceback goes to a file in `folder`, the person gets two lines."""
    what = f"internal error: {type(error).__name__}: {error}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"error-{time.strftime('%Y%m%d-%H%M%S')}.txt"
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError as unwritable:
        return UserError(what, f"report it; its traceback could not be kept ({unwritable})", INTERNAL)
    return UserError(what, f"report it with the traceback in {path}", INTERNAL)


def _as_json(error: UserError, verb: str) -> dict[str, object]:
    return {
        "schema": 1,
        "verb": verb,
        "outcome": "incomplete" if error.exit_code == INCOMPLETE else "failed",
        "exit_code": error.exit_code,
        "session": None,
        "error": {"what": _one_line(error.what), "try": _one_line(error.try_)},
    }


def _one_line(text: str) -> str:
    return " ".join(text.split())
