"""The spine folded: how fast events came, over the events themselves, so that waiting takes no room."""

from __future__ import annotations

from math import log1p

from sessions.session import Session
from sessions.spine import position_at, stages
from workbench.diagnosis.finding import Finding
from workbench.tui.widgets.spine import SpineFacts

CELLS = 120
ROLES = {"error": "e", "warning": "w", "note": "m"}
LIVE_SHARE = 0.8
"""Where reading the last tensor stands on the spine of a load that goes on; forward passes come after it."""


def spine_facts(session: Session, found: tuple[Finding, ...], now: int, progress: float | None) -> SpineFacts:
    """Density, stages and findings by position; `progress` 0..1 is how much of the checkpoint was read while live."""
    total = len(session)
    if not total:
        return SpineFacts()
    extent = 1.0 if progress is None else max(0.04, min(1.0, progress * LIVE_SHARE))
    scale = extent / max(1, total - 1)
    marks = tuple(
        (evidence.position * scale, ROLES.get(finding.severity, "m"))
        for finding in reversed(found)
        for evidence in finding.evidence
        if evidence.position is not None
    )
    named = tuple((position_at(session, at) * scale, name) for at, name in stages(session))
    cells = max(1, round(CELLS * extent))
    rates = session.kept(f"spine {cells}", lambda: _rates(session, cells))
    return SpineFacts((*rates, *([0.0] * (CELLS - cells))), named, marks, now * scale, extent)


def _rates(session: Session, cells: int) -> tuple[float, ...]:
    """Events per time in each of `cells` stretches of equal length, logarithmic, 0..1."""
    last = len(session) - 1
    at = [round(cell * last / cells) for cell in range(cells + 1)]
    times = {position: session.event(position).t_ns for position in set(at)}
    pairs = zip(at, at[1:], strict=False)
    rates = [log1p(1e9 * max(1, b - a) / max(1, times[b] - times[a])) for a, b in pairs]
    low, top = min(rates), max(rates)
    return tuple(0.1 + 0.9 * (rate - low) / (top - low) if top > low else 0.5 for rate in rates)
