"""Boxes, calls and sources in words, shared by what a person reads and what a program reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sessions.coverage import Box
from sessions.ledger import Write
from sessions.session import Session


def box_text(box: Box, shape: Sequence[int]) -> str:
    """A box as Python indexes it: `[0:64, :]`, `[3]`, `[:]` for all; `[]` for a scalar."""
    if not shape:
        return "[]"
    cuts = []
    for start, length, size in zip(*box, shape, strict=True):
        if start == 0 and length == size:
            cuts.append(":")
        else:
            cuts.append(str(start) if length == 1 else f"{start}:{start + length}")
    return f"[{', '.join(cuts)}]"


def boxes_text(boxes: Sequence[Box], shape: Sequence[int], most: int = 4) -> str:
    """Several boxes, the first `most` of them."""
    shown = " ".join(box_text(box, shape) for box in boxes[:most])
    return f"{shown} and {len(boxes) - most:,} more" if len(boxes) > most else shown


def box_json(box: Box, shape: Sequence[int]) -> dict[str, object]:
    """A box for a program: as text, and as start and stop per dimension."""
    stop = [a + n for a, n in zip(*box, strict=True)]
    return {"box": box_text(box, shape), "start": list(box[0]), "stop": stop}


def reference(session: Session, position: int) -> str | None:
    """`#131`, None outside of any event."""
    return session.event(position).ref if position >= 0 else None


def write_json(session: Session, write: Write) -> dict[str, object]:
    """A write and the call that made it."""
    call = session.event(write.position).body if write.position >= 0 else None
    return {
        "call": reference(session, write.position),
        "write": reference(session, write.at),
        "tensor": write.checkpoint_name or None,
        "shard_id": write.shard_id or None,
        "expert_id": write.expert_id if write.expert_id >= 0 else None,
        "loader": getattr(call, "loader", "") or None,
        "where": getattr(call, "where", "") or None,
        "operation": write.operation or None,
        "source": write.source or None,
    }


def write_text(session: Session, write: Write) -> str:
    """`#131 model.q_proj.weight as 'q'  weight_loader (linear.py:95)`."""
    call = session.event(write.position) if write.position >= 0 else None
    body = call.body if call is not None else None
    as_ = f" as {write.shard_id}" if write.shard_id else ""
    expert = f" of expert {write.expert_id}" if write.expert_id >= 0 else ""
    head = f"{call.ref} {write.checkpoint_name}{as_}{expert}" if call is not None else outside(session, write)
    loader, where = str(getattr(body, "loader", "")), str(getattr(body, "where", ""))
    by = f"  {'.'.join(loader.split('.')[-2:])}" if loader else ""
    at = f" ({'/'.join(where.split('/')[-2:])})" if where else ""
    said = f"  [{write.source}]" if write.source else ""
    return f"{head}{by}{at}{said}"


def outside(session: Session, write: Write) -> str:
    """A write that no loader call made."""
    name = f" {write.checkpoint_name}" if write.checkpoint_name else ""
    return f"{reference(session, write.at)}{name} {write.operation or 'a write'} outside of any loader call"


def counted(numbers: Iterable[int]) -> str:
    """`0`, `0–3`, `0, 2, 5`."""
    listed = sorted(set(numbers))
    if len(listed) > 2 and listed == list(range(listed[0], listed[-1] + 1)):
        return f"{listed[0]}–{listed[-1]}"
    return ", ".join(map(str, listed))
