"""The spine folded: how fast events came, over the rows of the timeline, so that waiting takes no room."""

from __future__ import annotations

from itertools import pairwise
from math import log1p

from sessions.session import Session
from sessions.spine import position_at, stages
from sessions.timeline import Timeline
from workbench.diagnosis.finding import Finding
from workbench.tui.widgets.spine import SpineFacts

CELLS = 120
ROLES = {"error": "e", "warning": "w", "note": "m"}
LIVE_SHARE = 0.8
"""Where reading the last tensor stands on the spine of a load that goes on; forward passes come after it."""


def spine_facts(
    session: Session, timeline: Timeline | None, found: tuple[Finding, ...], now: int, progress: float | None
) -> SpineFacts:
    """Density, stages and findings by row; `progress` 0..1 is how much of the checkpoint was read while live."""
    if timeline is None or not len(timeline) or not timeline.is_built:
        return SpineFacts()
    extent = 1.0 if progress is None else max(0.04, min(1.0, progress * LIVE_SHARE))
    scale = extent / max(1, len(timeline) - 1)

    def place(position: int) -> float:
        return max(0, timeline.row_of(position)) * scale

    marks = tuple(
        (place(evidence.position), ROLES.get(finding.severity, "m"))
        for finding in reversed(found)
        for evidence in finding.evidence
        if evidence.position is not None
    )
    begun = session.kept("stage places", lambda: [(position_at(session, at), name) for at, name in stages(session)])
    named = tuple((place(at), name) for at, name in begun)
    cells = max(1, round(CELLS * extent))
    rates = session.kept(f"spine {cells} {len(timeline)}", lambda: _rates(session, timeline, cells))
    return SpineFacts((*rates, *([0.0] * (CELLS - cells))), named, marks, place(now), extent)


def _rates(session: Session, timeline: Timeline, cells: int) -> tuple[float, ...]:
    """Events per time in each of `cells` stretches of rows, logarithmic, 0..1 between the 5th and 95th percentile."""
    last = len(timeline) - 1
    numbers = [min(last, cell * len(timeline) // cells) for cell in range(cells + 1)]
    firsts = {row.number: row.position for row in timeline.rows(sorted(set(numbers)))}
    at = [firsts[number] for number in numbers]
    times = {position: session.event(position).t_ns for position in set(at)}
    rates = [log1p(1e9 * max(1, b - a) / max(1, times[b] - times[a])) if b > a else 0.0 for a, b in pairwise(at)]
    filled = _carried(rates)
    ranked = sorted(filled)
    low, top = ranked[len(ranked) // 20], ranked[-1 - len(ranked) // 20]
    return tuple(0.08 + 0.92 * min(1.0, max(0.0, (rate - low) / (top - low))) if top > low else 0.5 for rate in filled)


def _carried(rates: list[float]) -> list[float]:
    """A row wider than a cell has its rate in each of its cells."""
    out, last = [], next((rate for rate in rates if rate), 0.0)
    for rate in rates:
        last = rate or last
        out.append(last)
    return out
