"""What the start screen says about the selected session: how it ended, why, and what it holds."""

from __future__ import annotations

from functools import lru_cache

from rich.text import Text

from sessions.errors import SessionError
from sessions.session import Session
from workbench.tui.marks import spark
from workbench.tui.paint import Lines, cut, paint, said, wrapped
from workbench.tui.recent import Recent, size_bytes
from workbench.tui.snapshot import Folding, Snapshot
from workbench.tui.spinefold import CELLS
from workbench.tui.views.view import blank
from workbench.tui.wording import size

MINI = 40


def about_session(one: Recent, width: int) -> Lines:
    """Name, mini spine, outcome, root cause, level, events, size."""
    facts = one.manifest
    lines = [said("session", "f"), cut(said(facts.name or one.path.name, "b"), width)]
    lines.append(cut(said(" · ".join(part for part in (facts.architecture, facts.format) if part), "m"), width))
    if one.problem:
        return [*lines, blank(), *wrapped(f"✗ {one.problem}", width, "e")]
    outcome = facts.outcome
    stamp = (outcome.ended if outcome is not None else "", one.path.stat().st_mtime_ns if one.path.exists() else 0)
    try:
        snapshot, mini = _looked(str(one.path), stamp)
    except (SessionError, OSError) as error:
        what = error.what if isinstance(error, SessionError) else str(error)
        return [*lines, blank(), *wrapped(f"✗ {what}", width, "e")]
    lines += [blank(), mini, *_ended(one, snapshot, width), *_cause(snapshot, width)]
    return [*lines, *_recorded(one, snapshot), blank(), *_keys()]


@lru_cache(maxsize=32)
def _looked(path: str, _stamp: tuple[object, ...]) -> tuple[Snapshot, Text]:
    """Fold a session once; it is closed again at once. SessionError when it cannot be read."""
    session = Session.open(path)
    try:
        snapshot = Folding(session).fold(None)
        return snapshot, spark([0.1 + height for height in snapshot.spine.density[:: CELLS // MINI]], 1.1)
    finally:
        session.close()


def _ended(one: Recent, snapshot: Snapshot, width: int) -> Lines:
    outcome = one.manifest.outcome
    names = [name for _, name in snapshot.spine.stages]
    last = f"reached {names[-1]}" if names else "nothing recorded"
    took = f", {outcome.duration_s * 1e3:,.0f} ms" if outcome is not None and outcome.duration_s else ""
    lines = [said(f"{last}{took}", "f"), blank()]
    if outcome is None or outcome.state == "running":
        return [*lines, paint("{a|●} {b|the host is running}" if snapshot.is_live else "{w|▲} {b|no end recorded}")]
    if outcome.state == "ok":
        return [*lines, paint("{m|✓} {b|loaded}")]
    how = f"by {outcome.signal}" if outcome.signal else f"exit code {outcome.exit_code}"
    return [*lines, cut(paint("{E|✗} {b|host $}{m|, $}", outcome.state, how), width)]


def _cause(snapshot: Snapshot, width: int) -> Lines:
    if not snapshot.findings:
        return [said("no findings", "m"), blank()]
    first = snapshot.findings[0]
    role = {"error": "e", "warning": "w"}.get(first.severity, "m")
    texts = wrapped(first.title, width - 4)
    lines = [blank(), said("root cause" if first.root and first.severity == "error" else "first finding", "m")]
    lines.append(paint("{" + role + "|$} $", first.id.ljust(2), texts[0]))
    lines += [Text.assemble("   ", text, no_wrap=True, end="") for text in texts[1:3]]
    more = len(snapshot.findings) - 1
    return [*lines, *([said(f"   and {more} more", "m")] if more else []), blank()]


def _recorded(one: Recent, snapshot: Snapshot) -> Lines:
    names = {view.name for view in snapshot.parameters}
    full = {view.name for view in snapshot.parameters if view.coverage.never_written == 0}
    told = snapshot.loaded
    pairs = (
        ("level", one.manifest.level, "events", f"{snapshot.count:,}"),
        ("ranks", str(told.tp or "–"), "size", size(size_bytes(one.path))),
        ("engine", told.engine or "–", "device", told.device or "–"),
    )
    lines = [said("recorded", "f")]
    lines += [paint("{m|$}$ {m|$}$", a.ljust(11), b.ljust(12), c.ljust(9), d) for a, b, c, d in pairs]
    return [*lines, paint("{m|parameters} $ of $ filled", len(full), len(names))]


def _keys() -> Lines:
    return [
        paint("{k|Enter} {m|open}   {k|f} {m|findings}   {k|d} {m|decisions}"),
        paint("{k|t} {m|timeline}   {k|p} {m|parameters}"),
    ]
