"""The scale of a weight was cut by another loader, so that it holds the scales of other rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from sessions.ledger import Write
from sessions.modules import WEIGHTS, is_companion
from sessions.parameters import ParameterView
from workbench.diagnosis.case import Case, leaf
from workbench.diagnosis.finding import Finding, Rule

Segment = tuple[float, float, float]


def _judge(case: Case) -> Iterator[Finding]:
    modules: dict[tuple[int, str], list[ParameterView]] = defaultdict(list)
    for view in case.parameters:
        modules[view.rank, view.module].append(view)
    for views in modules.values():
        weight = next((v for v in views if leaf(v.name) in WEIGHTS), None)
        for other in views:
            if weight is not None and is_companion(leaf(other.name)) and other.elements > 1:
                yield from _compared(case, weight, other)


def _compared(case: Case, weight: ParameterView, other: ParameterView) -> Iterator[Finding]:
    if weight.loader == other.loader:
        return
    wrong = _wrong_rows(case, weight, other)
    if wrong is None and not (weight.writes or other.writes) and "<locals>" in weight.loader:
        yield _finding(case, weight, other, "", is_seen=False)
    elif wrong:
        yield _finding(case, weight, other, wrong, is_seen=True)


def _wrong_rows(case: Case, weight: ParameterView, other: ParameterView) -> str | None:
    """In words which rows differ; "" when they are the same, None when that cannot be said."""
    for owner in {w.checkpoint_name.rpartition(".")[0] for w in weight.writes}:
        ours = [w for w in weight.writes if w.checkpoint_name.rpartition(".")[0] == owner]
        theirs = [w for w in other.writes if w.checkpoint_name.rpartition(".")[0] == owner]
        sizes = [_rows(case, writes) for writes in (ours, theirs)]
        if not theirs or 0 in sizes or min(sizes) < 2 or not weight.shape or not other.shape:
            continue
        if abs(other.shape[0] / sizes[1] - weight.shape[0] / sizes[0]) > 1 / sizes[1]:
            continue  # kept whole on every rank on purpose: another shape, not other rows
        if not _are_alike(
            _segments(ours, weight.shape[0], sizes[0]), _segments(theirs, other.shape[0], sizes[1]), 1 / sizes[1]
        ):
            return f"weight rows {_ranges(ours)}, {leaf(other.name)} rows {_ranges(theirs)} of {sizes[1]:,}"
        return ""
    return None


def _rows(case: Case, writes: Sequence[Write]) -> int:
    listed = case.header.get(writes[0].checkpoint_name) if writes else None
    return listed.shape[0] if listed is not None and listed.shape else 0


def _segments(writes: Sequence[Write], rows: int, source_rows: int) -> list[Segment]:
    """(begin in the parameter, begin in the source, length in the source) as parts of the whole, joined, in order."""
    plain = sorted((w.start[0], w.source_start[0], w.source_length[0]) for w in writes if w.start and w.source_start)
    joined: list[list[int]] = []
    for start, source, length in plain:
        last = joined[-1] if joined else None
        if last is not None and last[0] + last[2] == start and last[1] + last[2] == source:
            last[2] += length
        elif last is None or last != [start, source, length]:
            joined.append([start, source, length])
    return [(a / rows, b / source_rows, k / source_rows) for a, b, k in joined]


def _are_alike(ours: list[Segment], theirs: list[Segment], tolerance: float) -> bool:
    if not ours or not theirs:
        return True
    return len(ours) == len(theirs) and all(
        abs(a[1] - b[1]) <= tolerance and abs(a[2] - b[2]) <= tolerance for a, b in zip(ours, theirs, strict=True)
    )


def _ranges(writes: Sequence[Write]) -> str:
    spans = sorted({(w.source_start[0], w.source_length[0]) for w in writes if w.source_start})
    return ", ".join(f"{a:,}–{a + k - 1:,}" for a, k in spans[:4])


def _finding(case: Case, weight: ParameterView, other: ParameterView, rows: str, *, is_seen: bool) -> Finding:
    name = leaf(weight.module)
    says = f": {rows}" if rows else ""
    return Finding(
        class_=RULE.class_,
        severity="error" if is_seen else "warning",
        title=f"{leaf(other.name)} of {name} is not loaded as its weight",
        sentence=(
            f"{weight.name} is loaded by {weight.loader}, {leaf(other.name)} by {other.loader or 'no loader'}"
            f"{says}; each scale must belong to the rows that the weight took."
        ),
        remedy=f"Set the loader of {name}.weight on {leaf(other.name)} and on its other quantization parameters.",
        module=weight.module,
        parameter=other.name,
        rank=weight.rank,
        evidence=(
            case.evidence(
                weight.calls[0] if weight.calls else weight.position, "weight", f"{weight.loader} {weight.where}"
            ),
            case.evidence(other.calls[0] if other.calls else other.position, "scale", f"{other.loader} {other.where}"),
        ),
    )


RULE = Rule("loader/asymmetry", _judge)
