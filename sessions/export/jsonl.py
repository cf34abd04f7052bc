"""Export as JSON lines: the manifest first, then every event in order, one object a line."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from sessions.event import Event, UnknownBody
from sessions.export._writing import facts_of, finite, opened, pages
from sessions.session import Session


def export(session: Session, out: Path | TextIO) -> int:
    """Write the session to a file or an open text stream, page by page; returns the number of events written."""
    count = 0
    with opened(out) as file:
        file.write(_line({"manifest": asdict(session.manifest), "damage": session.damage}))
        for page in pages(session):
            file.write("".join(_line(_object(event)) for event in page))
            count += len(page)
    return count


def _object(event: Event) -> dict[str, object]:
    return {
        "ref": event.ref,
        "t_ns": event.t_ns,
        "dur_ns": event.dur_ns,
        "kind": event.kind,
        "stage": event.stage,
        "stream": event.stream,
        "parent": event.parent,
        "rank": event.rank,
        "is_known": not isinstance(event.body, UnknownBody),
        "body": facts_of(event),
    }


def _line(value: dict[str, object]) -> str:
    return json.dumps(finite(value), ensure_ascii=False, separators=(",", ":")) + "\n"
