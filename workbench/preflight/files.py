"""Whether the checkpoint's files are all there and whole: index and headers only, no tensor is read."""

from __future__ import annotations

from pathlib import Path

from backends.native.checkpoint.index import Checkpoint, open_checkpoint
from backends.native.errors import NativeError
from workbench.errors import INCOMPLETE, UserError


def check_files(folder: Path) -> Checkpoint:
    """Open the checkpoint. Raises UserError (exit 5) naming the file that is missing, truncated or malformed."""
    try:
        return open_checkpoint(folder)
    except NativeError as error:
        raise UserError(error.what.rstrip("."), error.remedy, INCOMPLETE) from error
    except OSError as error:
        raise UserError(
            f"{error.filename or folder} cannot be read: {error.strerror}",
            "check the path and its permissions",
            INCOMPLETE,
        ) from error
