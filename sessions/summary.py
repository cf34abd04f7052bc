"""The numbers of a session: counts, coverage, time by stage and how the host ended."""

from __future__ import annotations

from dataclasses import dataclass

from sessions.checkpoint import consumption, header
from sessions.ledger import ledger
from sessions.manifest import Outcome
from sessions.parameters import parameters
from sessions.session import Session


@dataclass(frozen=True)
class Counts:
    """How many of each; calls, decisions and parameters over all ranks together."""

    weight_loader_calls: int
    shard_splits: int
    skip_decisions: int
    kernel_launches: int
    parameters: int
    checkpoint_tensors: int


@dataclass(frozen=True)
class CoverageTotals:
    """Elements of all parameters of all ranks, and bytes of the checkpoint."""

    elements: int
    never_written: int
    written_twice: int
    checkpoint_bytes: int
    never_consumed_bytes: int


@dataclass(frozen=True)
class StageTime:
    """One stage: how many spans of it, and the time from its first start to its last end, in ns."""

    name: str
    ns: int
    count: int


@dataclass(frozen=True)
class Summary:
    """What a session comes to. `coverage` is None when the session does not hold it (level `calls`)."""

    counts: Counts
    coverage: CoverageTotals | None
    stages: tuple[StageTime, ...]
    outcome: Outcome | None

    @property
    def state(self) -> str:
        """How the host ended, "running" when nobody wrote an outcome."""
        return self.outcome.state if self.outcome is not None else "running"


def summary(session: Session) -> Summary:
    """The numbers of the session as it is now."""
    return session.kept("summary", lambda: _summary(session))


def _summary(session: Session) -> Summary:
    counts = session.counts()
    told = Counts(
        weight_loader_calls=counts.get("loader.called", 0),
        shard_splits=counts.get("shard.split", 0),
        skip_decisions=counts.get("skip.decided", 0),
        kernel_launches=counts.get("kernel.launched", 0),
        parameters=len(parameters(session)),
        checkpoint_tensors=len(header(session)),
    )
    return Summary(told, _coverage(session), _stages(session), session.manifest.outcome)


def _coverage(session: Session) -> CoverageTotals | None:
    views = parameters(session)
    if not ledger(session).has_writes or not views:
        return None
    found = [view.coverage for view in views]
    used = consumption(session)
    return CoverageTotals(
        elements=sum(c.elements for c in found),
        never_written=sum(c.never_written or 0 for c in found),
        written_twice=sum(c.written_twice or 0 for c in found),
        checkpoint_bytes=sum(c.size_bytes for c in used),
        never_consumed_bytes=sum(c.never_consumed_bytes or 0 for c in used),
    )


STAGE_KINDS = {
    "open": ("checkpoint.opened", "tensor.listed"),
    "create": ("skip.decided", "method.selected", "weights.created"),
    "load": ("weights.mapped", "tensor.read", "loader.called"),
    "process": ("weights.processed",),
    "forward": ("forward.ran", "kernel.launched"),
}
"""The stages under the spine, and the kinds that show each."""


def _stages(session: Session) -> tuple[StageTime, ...]:
    out = []
    for name, kinds in STAGE_KINDS.items():
        begin, end, count = 0, 0, 0
        for kind in kinds:
            for first, last, n in bounds(session, kind):
                begin = min(begin, first) if count else first
                end, count = max(end, last), count + n
        if count:
            out.append(StageTime(name, end - begin, count))
    return tuple(out)


def bounds(session: Session, kind: str) -> list[tuple[int, int, int]]:
    """For each stream with events of a kind: first start, last start plus its duration (ns), and their number."""
    found = (stream.bounds(kind) for stream in session.streams)
    return [b for b in found if b is not None]
