"""A part of a fused parameter was written where another part belongs: nothing failed, and the values are mixed up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from sessions.ledger import Write
from sessions.misplaced import Misplaced, misplaced, place_of
from sessions.parameters import ParameterView
from workbench.diagnosis.case import Case, leaf
from workbench.diagnosis.finding import Evidence, Finding, Rule

MOST_CALLS = 4


def _judge(case: Case) -> Iterator[Finding]:
    for view in case.parameters:
        writes = [w for w in view.writes if w.elements and w.start and w.shard_id]
        if len(writes) < 2:
            continue
        clash = (
            _clash(writes) if view.is_final and view.coverage.written_twice and view.coverage.never_written else None
        )
        if clash is not None:
            yield _overwritten(case, view, *clash)
        elif (parts := _out_of_order(writes)) is not None:
            yield _disordered(case, view, parts)
        elif swapped := [one for one in misplaced(case.session).get((view.rank, view.name), ()) if one.kind == "part"]:
            yield _exchanged(case, view, swapped)


def _out_of_order(writes: Sequence[Write]) -> list[Write] | None:
    """The first write of each part, by its place in the parameter, where that is not the order of the parts."""
    parts: dict[str, Write] = {}
    for write in writes:
        if write.expert_id >= 0 or place_of(write.shard_id) is None:
            return None
        parts.setdefault(write.shard_id, write)
    found = sorted(parts.values(), key=lambda w: w.start)
    places = [place for w in found if (place := place_of(w.shard_id)) is not None]
    return found if places != sorted(places) and len({w.start for w in found}) == len(found) else None


def _clash(writes: Sequence[Write]) -> tuple[Write, Write] | None:
    """Two parts of which the second was written over the first."""
    seen: dict[tuple[tuple[int, ...], tuple[int, ...]], Write] = {}
    for write in writes:
        first = seen.setdefault((write.start, write.length), write)
        if (first.expert_id, first.shard_id) != (write.expert_id, write.shard_id):
            return first, write
    return None


def _part(write: Write) -> str:
    shard = write.shard_id.strip("'\"")
    return f"{shard} of expert {write.expert_id}" if write.expert_id >= 0 else shard


def _box(write: Write) -> str:
    ends = (f"{a:,}" if n == 1 else f"{a:,}–{a + n - 1:,}" for a, n in zip(write.start, write.length, strict=True))
    return f"[{', '.join(ends)}]"


def _disordered(case: Case, view: ParameterView, parts: list[Write]) -> Finding:
    name = leaf(view.module)
    late = next(b for a, b in pairwise(parts) if (place_of(a.shard_id) or 0) > (place_of(b.shard_id) or 0))
    early = next(w for w in parts if (place_of(w.shard_id) or 0) > (place_of(late.shard_id) or 0))
    wanted = ", ".join(_part(w) for w in sorted(parts, key=lambda w: place_of(w.shard_id) or 0))
    came = [w.shard_id for w in sorted(parts, key=lambda w: w.at)] == [w.shard_id for w in parts]
    why = " The parts lie in the order in which the checkpoint has them." if came else ""
    return _finding(
        case,
        view,
        parts,
        title=f"{name}: {_part(early)} lies before {_part(late)}",
        sentence=(
            f"{name}.{leaf(view.name)} is read as {wanted}, one after the other, but {_part(early)} was written to "
            f"{_box(early)} and {_part(late)} to {_box(late)}.{why}"
        ),
        remedy=f"Let the place of a part in {leaf(view.name)} follow from its shard_id, not from when it comes.",
        steps=(
            ("header", f"the file has {', '.join(_source(w) for w in sorted(parts, key=lambda w: w.at))}", "plain"),
            ("create", f"{name} is {wanted}", "plain"),
            ("load", f"{_part(early)} → {_box(early)}", "warning"),
            ("forward", f"{_part(late)} is read from where {_part(early)} lies", "error"),
        ),
    )


def _exchanged(case: Case, view: ParameterView, wrong: Sequence[Misplaced]) -> Finding:
    """The shard id is that of another projection than the tensor's name: only the names tell."""
    first, name = wrong[0], leaf(view.module)
    source = _source(first.write)
    return _finding(
        case,
        view,
        [one.write for one in wrong],
        title=f"{name}: {source} lies where {first.wanted} belongs",
        sentence=(
            f"{first.write.checkpoint_name} was loaded as {_part(first.write)} to {_box(first.write)} of "
            f"{leaf(view.name)}, which is read as {first.wanted}."
        ),
        remedy=f"Compare the shard ids that the name mapping gives to the parts of {name} with their order.",
        steps=(
            ("create", f"{_part(first.write)} is {first.wanted}", "plain"),
            ("load", f"{source} → {_part(first.write)}", "warning"),
            ("forward", f"{first.wanted} is read from where {source} lies", "error"),
        ),
    )


def _overwritten(case: Case, view: ParameterView, first: Write, second: Write) -> Finding:
    name, missing = leaf(view.module), view.coverage.never_written or 0
    return _finding(
        case,
        view,
        [first, second],
        title=_overwritten_title(name, first, second),
        sentence=(
            f"{_part(second)} ({_source(second)}) was written to {_box(second)} of {leaf(view.name)}, over "
            f"{_part(first)} ({_source(first)}); its own place stays empty: {missing:,} of {view.elements:,} elements "
            "were never written. Every tensor of the checkpoint came."
        ),
        remedy="Compare expert_id and shard_id of the second call with the place that its loader computes from them.",
        steps=(
            ("load", f"{_part(first)} → {_box(first)}", "plain"),
            ("load", f"{_part(second)} → {_box(second)}", "warning"),
            ("model", f"{missing:,} elements never written", "error"),
        ),
    )


def _overwritten_title(name: str, first: Write, second: Write) -> str:
    if first.expert_id == second.expert_id >= 0:
        where, first, second = f"expert {first.expert_id}", *(w._replace(expert_id=-1) for w in (first, second))
        return f"{where}: {_part(second)} lies where {_part(first)} belongs"
    return f"{name}: {_part(second)} lies where {_part(first)} belongs"


def _source(write: Write) -> str:
    return ".".join(write.checkpoint_name.split(".")[-2:])


def _finding(
    case: Case,
    view: ParameterView,
    writes: Sequence[Write],
    *,
    title: str,
    sentence: str,
    remedy: str,
    steps: tuple[tuple[str, str, str], ...],
) -> Finding:
    evidence: list[Evidence] = [
        case.evidence(w.at, "written", f"{_part(w)} → {_box(w)} from {_source(w)}", w.checkpoint_name)
        for w in writes[:MOST_CALLS]
    ]
    return Finding(
        class_=RULE.class_,
        severity="error",
        title=title,
        sentence=sentence,
        remedy=remedy,
        module=view.module,
        parameter=view.name,
        tensor=writes[-1].checkpoint_name,
        rank=view.rank,
        evidence=tuple(evidence),
        steps=steps,
    )


RULE = Rule("shard/misplaced", _judge)
