"""The call at which a load failed, in a few lines: what a person wants to read before opening anything."""

from __future__ import annotations

from inspectors.probe.events import LoaderCalled, StageFailed
from sessions.event import Event
from sessions.session import Session


def failing_call(session: Session) -> list[str]:
    """A session's last failure: parameter, checkpoint tensor, shard, rank, shapes, place; [] without one."""
    failures = list(session.of_kinds(StageFailed.kind))
    if not failures:
        return []
    event = failures[-1]
    body = event.body
    if not isinstance(body, StageFailed):
        return []
    lines = [f"{body.failed_stage} failed: {body.error}: {' '.join(body.message.split())}"]
    called = _call(session, event)
    if called is not None:
        lines += _of_call(called, event.rank)
    else:
        about = [f"module {body.module}" if body.module else "", f"rank {event.rank}" if event.rank >= 0 else ""]
        lines.append("  ".join(filter(None, about)))
    if body.where:
        lines.append(f"at {body.where}")
    return [line for line in lines if line]


def _call(session: Session, event: Event) -> LoaderCalled | None:
    at: Event | None = event
    while at is not None:
        if isinstance(at.body, LoaderCalled):
            return at.body
        at = session.parent(at)
    return None


def _of_call(called: LoaderCalled, rank: int) -> list[str]:
    shard = f"  shard {called.shard_id}" if called.shard_id else ""
    expert = f"  expert {called.expert_id}" if called.expert_id >= 0 else ""
    return [
        f"parameter  {called.parameter}  {called.parameter_dtype}{list(called.parameter_shape)}",
        f"tensor     {called.checkpoint_name}  {called.tensor_dtype}{list(called.tensor_shape)}",
        f"call       rank {rank}{shard}{expert}  {called.loader}  {called.where}",
    ]
