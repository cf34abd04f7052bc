"""Export as a Chrome trace, which Perfetto and chrome://tracing open: tracks of ranks and stages, memory, reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from inspectors.probe.events import LoaderCalled, MemorySampled, StageTimed, TensorRead
from sessions.event import Event
from sessions.export._writing import facts_of, finite, opened, pages
from sessions.rowtext import label_of, name_of
from sessions.session import Session

OUTSIDE_RANKS = 1_000_000
"""Track numbers of what belongs to no rank start here, one a stream."""
STAGES = 2_000_000
"""Track numbers of stages start here, one a rank: their edges are not those of the spans inside them."""

Object = dict[str, object]


def export(session: Session, out: Path | TextIO) -> int:
    """Write the session to a file or an open text stream, page by page; returns the number of events written.

    Every stream is a process. Times are in microseconds since the first event. A span that never ended reaches to the
    last event, with `open` among its facts. Samples of memory are counters in bytes; an arrow leads from each read of a
    tensor to the loader calls that took it.
    """
    begin, end = _limits(session)
    tracks: set[tuple[int, int]] = set()
    arrows = _Arrows(begin)
    count = 0
    with opened(out) as file:
        file.write('{"displayTimeUnit":"ns","traceEvents":[\n')
        file.write(",\n".join(_line(one) for one in _processes(session)))
        for page in pages(session):
            lines = [
                _line(_named("thread_name", e.stream + 1, _track(e), _track_name(e))) for e in _firsts(page, tracks)
            ]
            lines += [_line(one) for event in page for one in (*_traces(event, begin, end), *arrows.of(event))]
            file.write("".join(f",\n{line}" for line in lines))
            count += len(page)
        file.write("\n]}\n")
    return count


def _limits(session: Session) -> tuple[int, int]:
    bounds = [(row[2], row[3]) for stream in session.streams for row in stream.rollup()]
    return min((b[0] for b in bounds), default=0), max((b[1] for b in bounds), default=0)


def _processes(session: Session) -> list[Object]:
    name = session.manifest.name or session.folder.name
    if len(session.streams) <= 1:
        return [_named("process_name", 1, 0, name)]
    told = [(one.number + 1, one.meta.get("pid", "")) for one in session.streams]
    return [_named("process_name", number, 0, f"{name} · process {pid}") for number, pid in told]


def _track(event: Event) -> int:
    if isinstance(event.body, StageTimed):
        return STAGES + max(event.rank, -1) + 1
    return event.rank if event.rank >= 0 else OUTSIDE_RANKS + event.stream


def _track_name(event: Event) -> str:
    if isinstance(event.body, StageTimed):
        return f"stages of rank {event.rank}" if event.rank >= 0 else "stages"
    return f"rank {event.rank}" if event.rank >= 0 else f"process {event.stream}"


def _firsts(page: list[Event], known: set[tuple[int, int]]) -> list[Event]:
    out = []
    for event in page:
        track = (event.stream, _track(event))
        if track not in known and not isinstance(event.body, MemorySampled):
            known.add(track)
            out.append(event)
    return out


def _traces(event: Event, begin: int, end: int) -> Iterator[Object]:
    if isinstance(event.body, MemorySampled):
        yield from _counters(event, event.body, begin)
    else:
        yield _trace(event, begin, end)


def _trace(event: Event, begin: int, end: int) -> Object:
    facts = facts_of(event)
    facts["ref"] = event.ref
    label = label_of(event.kind, event.body, "", 1)
    if event.kind in {"tensor.listed", "parameter.registered"}:
        label = name_of(event.body)
    if isinstance(event.body, StageTimed):
        label = event.body.of_stage
    out: Object = {
        "name": label or event.kind,
        "cat": event.stage or event.kind,
        "pid": event.stream + 1,
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


def _counters(event: Event, body: MemorySampled, begin: int) -> Iterator[Object]:
    """One track for each series; what nobody told is left out."""
    at: Object = {"cat": event.kind, "ph": "C", "pid": event.stream + 1, "ts": (event.t_ns - begin) / 1000}
    series = {
        "host memory": {"resident": body.rss_bytes, "pages of files": body.file_bytes},
        "page faults": {"major": body.major_faults, "minor": body.minor_faults},
    }
    if body.device:
        held = {"allocated": body.device_allocated_bytes, "reserved": body.device_reserved_bytes}
        series[f"memory of {body.device}"] = held
    for name, values in series.items():
        known = {key: value for key, value in values.items() if value >= 0}
        if known:
            yield {"name": name, **at, "args": known}


class _Arrows:
    """From the read of a tensor to each loader call that took it."""

    def __init__(self, begin: int) -> None:
        self._begin = begin
        self._reads: dict[tuple[int, str], Object] = {}
        self._count = 0

    def of(self, event: Event) -> tuple[Object, ...]:
        """The two ends of an arrow for a loader call whose tensor was seen being read."""
        body = event.body
        if isinstance(body, TensorRead):
            self._reads[event.stream, body.checkpoint_name] = self._end(event, (event.dur_ns or 0) // 2)
            return ()
        start = self._reads.get((event.stream, body.checkpoint_name)) if isinstance(body, LoaderCalled) else None
        if start is None:
            return ()
        self._count += 1
        return (
            {**start, "ph": "s", "id": self._count},
            {**self._end(event, 0), "ph": "f", "bp": "e", "id": self._count},
        )

    def _end(self, event: Event, after_ns: int) -> Object:
        at = (event.t_ns + after_ns - self._begin) / 1000
        return {"name": "tensor", "cat": "read to load", "pid": event.stream + 1, "tid": _track(event), "ts": at}


def _named(what: str, process: int, track: int, name: str) -> Object:
    return {"ph": "M", "name": what, "pid": process, "tid": track, "args": {"name": name}}


def _line(value: Object) -> str:
    return json.dumps(finite(value), ensure_ascii=False, separators=(",", ":"))
