"""The one exception of the session reader: what is wrong and what to try."""

from __future__ import annotations


class SessionError(Exception):
    """A session (or a question about it) that cannot be read; `what` names file and fact, `try_` the way out."""

    def __init__(self, what: str, try_: str) -> None:
        super().__init__(f"{what}\n{try_}")
        self.what, self.try_ = what, try_
