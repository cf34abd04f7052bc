"""The scales of a weight were cut by another loader than the weight, so that they are the scales of other rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sessions.ledger import Write
from sessions.modules import WEIGHTS, is_companion
from sessions.parameters import ParameterView
from workbench.diagnosis.case import Case, leaf
from workbench.diagnosis.finding import Evidence, Finding, Rule

MOST_RANGES = 4

Segment = tuple[int, int, int]
"""Begin in the parameter, begin in the checkpoint tensor, length: rows, joined where both go on."""


@dataclass(frozen=True)
class _Difference:
    """What the weight and one of its scales took: ranges of rows, empty where writes were not recorded.

    `right` is the number of scales that are those of their row, None where that cannot be said.
    """

    scale: ParameterView
    weight_rows: str = ""
    scale_rows: str = ""
    source_rows: int = 0
    right: int | None = None

    @property
    def is_seen(self) -> bool:
        """False when no writes are known: the loaders differ, and that is all that can be said."""
        return bool(self.scale_rows)


def _judge(case: Case) -> Iterator[Finding]:
    modules: dict[tuple[int, str], list[ParameterView]] = defaultdict(list)
    for view in case.parameters:
        modules[view.rank, view.module].append(view)
    for views in modules.values():
        weight = next((v for v in views if leaf(v.name) in WEIGHTS), None)
        if weight is None:
            continue
        scales = [v for v in views if is_companion(leaf(v.name)) and v.elements > 1 and v.loader != weight.loader]
        found = [one for view in scales if (one := _difference(case, weight, view)) is not None]
        if found:
            yield _finding(case, weight, found)


def _difference(case: Case, weight: ParameterView, other: ParameterView) -> _Difference | None:
    if not (weight.writes or other.writes):
        # One scale for each fused part is no matter of rows.
        is_by_rows = len(other.shape) > 1 or other.shape[:1] == weight.shape[:1]
        return _Difference(other) if "<locals>" in weight.loader and is_by_rows else None
    for owner in {w.checkpoint_name.rpartition(".")[0] for w in weight.writes}:
        ours = [w for w in weight.writes if w.checkpoint_name.rpartition(".")[0] == owner]
        theirs = [w for w in other.writes if w.checkpoint_name.rpartition(".")[0] == owner]
        sizes = _rows(case, ours), _rows(case, theirs)
        if min(sizes) < 2 or not weight.shape or not other.shape:
            continue
        if abs(other.shape[0] / sizes[1] - weight.shape[0] / sizes[0]) > 1 / sizes[1]:
            continue  # kept whole on every rank on purpose: another shape, not other rows
        return _compared(other, (_segments(ours), sizes[0]), (_segments(theirs), sizes[1]))
    return None


def _compared(
    other: ParameterView, ours: tuple[list[Segment], int], theirs: tuple[list[Segment], int]
) -> _Difference | None:
    (mine, rows), (its, its_rows) = ours, theirs
    if not mine or not its or _are_alike(mine, rows, its, its_rows):
        return None
    right = _matching(mine, its) if rows == its_rows else None
    return _Difference(other, ranges(mine), ranges(its), its_rows, right)


def _rows(case: Case, writes: Sequence[Write]) -> int:
    listed = case.header.get(writes[0].checkpoint_name) if writes else None
    return listed.shape[0] if listed is not None and listed.shape else 0


def _segments(writes: Sequence[Write]) -> list[Segment]:
    plain = sorted((w.start[0], w.source_start[0], w.source_length[0]) for w in writes if w.start and w.source_start)
    joined: list[Segment] = []
    for start, source, length in plain:
        begin, first, size = joined[-1] if joined else (0, 0, 0)
        if joined and begin + size == start and first + size == source:
            joined[-1] = (begin, first, size + length)
        elif not joined or joined[-1] != (start, source, length):
            joined.append((start, source, length))
    return joined


def _are_alike(ours: list[Segment], rows: int, theirs: list[Segment], its_rows: int) -> bool:
    """Whether both took the same parts of their tensors, up to one row of the smaller one."""
    return len(ours) == len(theirs) and all(
        abs(a[1] / rows - b[1] / its_rows) <= 1 / its_rows and abs(a[2] / rows - b[2] / its_rows) <= 1 / its_rows
        for a, b in zip(ours, theirs, strict=True)
    )


def _matching(ours: list[Segment], theirs: list[Segment]) -> int:
    """How many rows of the parameter have the same source in both."""
    return sum(
        max(0, min(a + k, b + m) - max(a, b))
        for a, source, k in ours
        for b, its_source, m in theirs
        if source - a == its_source - b
    )


def ranges(segments: Sequence[Segment]) -> str:
    """The rows of the checkpoint tensor that segments take: "0–31, 128–159"."""
    listed = ", ".join(f"{source:,}–{source + length - 1:,}" for _, source, length in segments[:MOST_RANGES])
    return f"{listed} …" if len(segments) > MOST_RANGES else listed


def _finding(case: Case, weight: ParameterView, found: list[_Difference]) -> Finding:
    first, name = found[0], leaf(weight.module)
    scales = " and ".join(leaf(one.scale.name) for one in found)
    told = "of other rows" if first.is_seen else "loaded apart"
    return Finding(
        class_=RULE.class_,
        severity="error" if first.is_seen else "warning",
        title=f"{name}: {'scale' if len(found) == 1 else 'scales'} {told}",
        sentence=_sentence(weight, found, scales),
        remedy=(
            f"Give the loader of {name}.weight to {scales} too, and to every other quantization parameter of the "
            "module: some keep it in _weight_loader, some in an attribute."
        ),
        module=weight.module,
        parameter=first.scale.name,
        rank=weight.rank,
        evidence=_evidence(case, weight, found),
        steps=_steps(weight, first),
    )


def _sentence(weight: ParameterView, found: list[_Difference], scales: str) -> str:
    first, name = found[0], leaf(weight.module)
    by = f"{name}.weight is loaded by {brief(weight.loader)}, {scales} by {brief(first.scale.loader)}"
    if not first.is_seen:
        return f"{by}; each scale must belong to the rows that the weight took."
    right = f": {first.right:,} of {first.scale.shape[0]:,} are those of their row" if first.right is not None else ""
    return (
        f"Rank {weight.rank} took rows {first.weight_rows} of the weight, but rows {first.scale_rows} of "
        f"{first.source_rows:,} of {scales}{right}. {by}."
    )


def _evidence(case: Case, weight: ParameterView, found: list[_Difference]) -> tuple[Evidence, ...]:
    out = [_loaded(case, weight, "weight", f"rows {found[0].weight_rows}" if found[0].is_seen else "")]
    out += [_loaded(case, one.scale, "scale", f"rows {one.scale_rows}" if one.is_seen else "") for one in found]
    return tuple(out)


def _loaded(case: Case, view: ParameterView, what: str, rows: str) -> Evidence:
    file, _, line = view.where.rpartition("/")[2].rpartition(":")
    where = f", {file}:{line}" if file else ""
    return case.evidence(
        view.calls[0] if view.calls else view.position,
        what,
        f"{leaf(view.name)}{f' ← {rows}' if rows else ''} by {leaf(brief(view.loader)) or 'no loader'}{where}",
        view.name,
        screen="parameters",
        row=view.name,
    )


def _steps(weight: ParameterView, first: _Difference) -> tuple[tuple[str, str, str], ...]:
    loaders = f"weight: {leaf(brief(weight.loader))}, scale: {leaf(brief(first.scale.loader))}"
    create = ("create", loaders, "warning")
    if not first.is_seen:
        return (create,)
    return (
        create,
        ("load", f"weight ← {first.weight_rows}", "plain"),
        ("load", f"scale ← {first.scale_rows}", "error"),
    )


def brief(loader: str) -> str:
    """A loader's name without its package, and without the function that made it."""
    return loader.rpartition("<locals>.")[2] if "<locals>" in loader else ".".join(loader.split(".")[-2:])


RULE = Rule("loader/asymmetry", _judge)
