"""Elements of a parameter that two writes filled: the later one won."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from sessions.coverage import elements, grid
from sessions.ledger import Write
from sessions.parameters import ParameterView
from workbench.diagnosis.case import Case
from workbench.diagnosis.finding import Finding, Rule

SHAPE, PACKED = "_shape", "_packed"


def _judge(case: Case) -> Iterator[Finding]:
    names = {(view.rank, view.name) for view in case.parameters}
    for view in case.parameters:
        if view.coverage.written_twice:
            # a parameter that is first filled with a constant and then loaded is no overlap
            real = [w for w in view.writes if "constant" not in w.source and w.elements]
            if (view.rank, view.name.removesuffix(SHAPE) + PACKED) in names and _is_shape_of_parts(view, real):
                continue
            for once in _loads(case, view.rank, real):
                found = grid(view.shape, [(w.start or (0,), w.length or (1,)) for w in once])
                if found is not None and found.twice:
                    yield _finding(case, view, once, found.twice)


def _loads(case: Case, rank: int, writes: list[Write]) -> list[list[Write]]:
    """Writes by the load they belong to: who is attached to a running process may see it load its weights again."""
    if not case.session.manifest.attached_at:
        return [writes]
    begins = sorted(row[0] for row in case.session.rows("weights.mapped", ()) if row[5] == rank)
    loads: dict[int, list[Write]] = {}
    for write in writes:
        loads.setdefault(bisect_right(begins, write.at), []).append(write)
    return list(loads.values())


def _is_shape_of_parts(view: ParameterView, writes: list[Write]) -> bool:
    """True for no weight but the shape of one, of which each part of a fused module has its own in the checkpoint.

    compressed-tensors keeps `weight_shape` beside `weight_packed`. A fused weight has the rows of all parts and none of
    their shapes: each takes the place of the one before, whole. A part that came twice is a defect all the same.
    """
    if not view.name.endswith(SHAPE) or not view.dtype.startswith("int"):
        return False
    parts = {(write.shard_id, write.expert_id) for write in writes}
    tensors = {write.checkpoint_name for write in writes}
    is_each_once = len(parts) == len(tensors) == len(writes) and all(name.endswith(SHAPE) for name in tensors)
    boxes = {(write.start, write.length) for write in writes}
    return is_each_once and sum(elements(length) for _, length in boxes) == view.elements


def _finding(case: Case, view: ParameterView, writes: list[Write], twice: int) -> Finding:
    first, second = _overlap(writes)
    name = ".".join(view.name.split(".")[-2:])
    return Finding(
        class_=RULE.class_,
        severity="warning",
        title=f"part of {name} was written twice" if twice < view.elements else f"{name} was written twice",
        sentence=(
            f"{twice:,} of {view.elements:,} elements of {view.name} were written more than once: by "
            f"{_said(first)}, then by {_said(second)}."
        ),
        remedy="Two checkpoint tensors, or two shard ids, fill the same place: compare start and length of both calls.",
        module=view.module,
        parameter=view.name,
        tensor=second.checkpoint_name or None,
        rank=view.rank,
        evidence=(
            case.evidence(first.at, "first", f"{_said(first)} at {list(first.start)} + {list(first.length)}"),
            case.evidence(second.at, "second", f"{_said(second)} at {list(second.start)} + {list(second.length)}"),
        ),
    )


def _said(write: Write) -> str:
    shard = f" as {write.shard_id}" if write.shard_id else ""
    return f"{write.checkpoint_name or 'a write outside of loader calls'}{shard}"


def _overlap(writes: list[Write]) -> tuple[Write, Write]:
    for n, second in enumerate(writes):
        for first in writes[:n]:
            if all(
                a < b + m and b < a + k
                for a, k, b, m in zip(first.start, first.length, second.start, second.length, strict=False)
            ):
                return first, second
    return writes[0], writes[-1]


RULE = Rule("parameter/written-twice", _judge, follows=("shard/misplaced",))
