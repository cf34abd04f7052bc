"""What all exports share: where they write, how they read a session, and what an event's facts are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TextIO

from sessions.event import Event, UnknownBody
from sessions.session import PAGE, Session


def opened(out: Path | TextIO) -> AbstractContextManager[TextIO]:
    """The file of a path, opened for writing and closed afterwards; a stream that is already open is left open."""
    if isinstance(out, Path):
        return out.open("w", encoding="utf-8")
    return nullcontext(out)


def pages(session: Session) -> Iterator[list[Event]]:
    """All events, a page at a time: memory does not grow with the session."""
    for start in range(0, len(session), PAGE):
        yield session.page(start, start + PAGE)


def facts_of(event: Event) -> dict[str, object]:
    """The fields of an event's body with those that this version does not know."""
    body = event.body.facts if isinstance(event.body, UnknownBody) else event.body.__dict__
    return {**body, **event.extra}


def finite(value: object) -> object:
    """Strict JSON has no NaN or infinity; they are written as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    return value
