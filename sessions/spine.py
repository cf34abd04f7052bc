"""The spine: how dense events are over the time of a session, and where its stages begin."""

from __future__ import annotations

from math import log1p

from sessions.session import Session
from sessions.summary import STAGE_KINDS, bounds

_STAGED = frozenset(kind for kinds in STAGE_KINDS.values() for kind in kinds)
_BY_THE_CLOCK = frozenset({"memory.sampled"})
"""Kinds that come whether or not the engine does anything."""


def span_ns(session: Session) -> tuple[int, int]:
    """The first and the last moment of the load (monotonic ns); (0, 0) when nothing is recorded.

    The start of the process and its imports come before the first stage: they would be most of the line.
    """
    rollups = [row for stream in session.streams for row in stream.rollup() if row[0] not in _BY_THE_CLOCK]
    if not rollups:
        return 0, 0
    begins = [row[2] for row in rollups if row[0] in _STAGED] or [row[2] for row in rollups]
    return min(begins), max(row[3] for row in rollups)


def density(session: Session, width: int) -> list[float]:
    """Events over time in `width` cells, 0..1 on a logarithmic scale; 0 where nothing was recorded.

    Read from the rollup, so its cost does not grow with the number of events.
    """
    begin, end = span_ns(session)
    cells = [0.0] * max(width, 0)
    if not cells:
        return cells
    scale = width / max(end - begin, 1)
    for stream in session.streams:
        for kind, count, first, last in stream.rollup():
            if kind in _BY_THE_CLOCK:
                continue
            left = max(0, min(int((first - begin) * scale), width - 1))
            right = max(left, min(int((last - begin) * scale), width - 1))
            for cell in range(left, right + 1):
                cells[cell] += count / (right - left + 1)
    top = log1p(max(cells, default=0.0))
    return [log1p(c) / top if top else 0.0 for c in cells]


def stages(session: Session) -> list[tuple[float, str]]:
    """(fraction of the time, name) of the stages that occur: open, create, load, process, forward."""
    begin, end = span_ns(session)
    out = []
    for name, kinds in STAGE_KINDS.items():
        firsts = [first for kind in kinds for first, _, _ in bounds(session, kind)]
        if firsts:
            out.append(((min(firsts) - begin) / max(end - begin, 1), name))
    return sorted(out)


def fraction_of(session: Session, position: int) -> float:
    """Where an event stands on the spine, 0..1."""
    begin, end = span_ns(session)
    if not len(session) or end == begin:
        return 0.0
    event = session.event(max(0, min(position, len(session) - 1)))
    return min(max((event.t_ns - begin) / (end - begin), 0.0), 1.0)


def position_at(session: Session, fraction: float) -> int:
    """The position of the last event that had begun at a fraction of the spine, -1 when nothing is recorded."""
    begin, end = span_ns(session)
    wanted = begin + fraction * (end - begin)
    low, high = 0, len(session) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if session.event(middle).t_ns <= wanted:
            low = middle
        else:
            high = middle - 1
    return low if len(session) else -1
