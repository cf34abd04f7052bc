"""The third column of a wide terminal: the host's log in step with `now`."""

from __future__ import annotations

from sessions.session import Session
from workbench.tui.paint import Lines, said
from workbench.tui.snapshot import Snapshot
from workbench.tui.views.view import blank


def aside(session: Session, snapshot: Snapshot, height: int) -> Lines:
    """The last lines that had come at `now`, the newest at the foot."""
    if not snapshot.log_count:
        return [said("host log", "f"), blank(), said("The host printed nothing.", "m")]
    last = snapshot.log_count - 1
    if 0 <= snapshot.now < snapshot.count - 1:
        last = session.log_line_at(session.event(snapshot.now).t_ns)
    found = session.log_lines(max(0, last - height + 4), last + 1)
    return [said("host log", "f"), blank(), *(said(one.text.expandtabs(4), "m") for one in found)]
