"""Export as a Chrome trace, which Perfetto and chrome://tracing open: one track a rank, spans, instants and facts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TextIO

from sessions.event import Event
from sessions.export._writing import facts_of, finite, opened, pages
from sessions.rowtext import label_of, name_of
from sessions.session import Session

PROCESS = 1
OUTSIDE_RANKS = 1_000_000
"""Track numbers of what belongs to no rank start here, one a stream."""


def export(session: Session, out: Path | TextIO) -> int:
    """Write the session to a file or an open text stream, page by page; returns the number of events written.

    Times are in microseconds since the first event. A span that never ended reaches to the last event, with `open`
    among its facts.
    """
    begin, end = _limits(session)
    tracks: set[int] = set()
    count = 0
    with opened(out) as file:
        file.write('{"displayTimeUnit":"ns","traceEvents":[\n')
        file.write(_line(_named("process_name", 0, session.manifest.name or session.folder.name)))
        for page in pages(session):
            lines = [_line(_named("thread_name", _track(e), _track_name(e))) for e in _first_of_track(page, tracks)]
            file.write("".join(f",\n{line}" for line in lines))
            file.write("".join(f",\n{_line(_trace(event, begin, end))}" for event in page))
            count += len(page)
        file.write("\n]}\n")
    return count


def _limits(session: Session) -> tuple[int, int]:
    bounds = [(row[2], row[3]) for stream in session.streams for row in stream.rollup()]
    return min((b[0] for b in bounds), default=0), max((b[1] for b in bounds), default=0)


def _track(event: Event) -> int:
    return event.rank if event.rank >= 0 else OUTSIDE_RANKS + event.stream


def _track_name(event: Event) -> str:
    return f"rank {event.rank}" if event.rank >= 0 else f"process {event.stream}"


def _first_of_track(page: list[Event], known: set[int]) -> list[Event]:
    out = []
    for event in page:
        if _track(event) not in known:
            known.add(_track(event))
            out.append(event)
    return out


def _trace(event: Event, begin: int, end: int) -> dict[str, object]:
    facts = facts_of(event)
    facts["ref"] = event.ref
    label = label_of(event.kind, event.body, "", 1)
    if event.kind in {"tensor.listed", "parameter.registered"}:
        label = name_of(event.body)
    out: dict[str, object] = {
        "name": label or event.kind,
        "cat": event.stage or event.kind,
        "pid": PROCESS,
        "tid": _track(event),
        "ts": (event.t_ns - begin) / 1000,
        "args": facts,
    }
    if event.dur_ns == 0:
        return {**out, "ph": "i", "s": "t"}
    if event.dur_ns is None:
        facts["open"] = True
        return {**out, "ph": "X", "dur": max(end - event.t_ns, 0) / 1000}
    return {**out, "ph": "X", "dur": event.dur_ns / 1000}


def _named(what: str, track: int, name: str) -> dict[str, object]:
    return {"ph": "M", "name": what, "pid": PROCESS, "tid": track, "args": {"name": name}}


def _line(value: dict[str, object]) -> str:
    return json.dumps(finite(value), ensure_ascii=False, separators=(",", ":"))
