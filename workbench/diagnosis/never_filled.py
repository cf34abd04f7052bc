"""Parameters that no write reached, wholly or in part; while a load fails that is only what it left undone."""

from __future__ import annotations

from collections.abc import Iterator

from inspectors.probe.events import ModelLoaded
from sessions.parameters import ParameterView
from workbench.diagnosis.case import Case
from workbench.diagnosis.finding import Evidence, Finding, Rule


def _judge(case: Case) -> Iterator[Finding]:
    if case.has_failed:
        yield from _left_undone(case)
        return
    told = _told_by_engine(case)
    reported = {row[5] for row in case.session.rows("model.loaded", ())}
    for view in case.parameters:
        if not view.is_final:
            continue
        is_told = (view.rank, view.name) in told
        missing = view.coverage.never_written
        # without a call it may be tied to another parameter or computed later: the engine's own report decides
        is_seen = bool(missing) and (bool(view.loader_calls) or view.rank not in reported)
        if is_told or is_seen:
            yield _finding(case, view, missing, told.get((view.rank, view.name)))


def _told_by_engine(case: Case) -> dict[tuple[int, str], int]:
    events = case.session.of_kinds("model.loaded")
    return {(e.rank, n): e.position for e in events if isinstance(e.body, ModelLoaded) for n in e.body.never_filled}


def _finding(case: Case, view: ParameterView, missing: int | None, told_at: int | None) -> Finding:
    is_whole = missing is None or missing == view.elements
    amount = "" if is_whole else f"{missing:,} of {view.elements:,} elements of "
    name = ".".join(view.name.split(".")[-2:])
    evidence = [
        case.evidence(view.position, "parameter", f"{view.dtype} {list(view.shape)}, loader {view.loader or 'unknown'}")
    ]
    if view.calls:
        evidence.append(case.evidence(view.calls[-1], "last call", f"{view.loader_calls[-1].checkpoint_name}"))
    if told_at is not None:
        evidence.append(case.evidence(told_at, "engine", "names it as never filled"))
    return Finding(
        class_=RULE.class_,
        severity="error",
        title=f"{name} was never filled" if is_whole else f"part of {name} was never filled",
        sentence=(
            f"{amount}{view.name} ({view.dtype} {list(view.shape)}) "
            f"{'was' if is_whole else 'were'} written by no loader call: what is there is uninitialised memory."
        ),
        remedy=(
            "See on the parameters screen which cells are missing; look for a checkpoint tensor of that name "
            "that was renamed or dropped, or a shard_id that no call used."
        ),
        module=view.module,
        parameter=view.name,
        rank=view.rank,
        evidence=tuple(evidence),
    )


def _left_undone(case: Case) -> Iterator[Finding]:
    undone = [v for v in case.parameters if not v.loader_calls]
    if not undone:
        return
    last = case.session.event(len(case.session) - 1)
    yield Finding(
        class_=RULE.class_,
        severity="note",
        title=f"{len(undone):,} of {len(case.parameters):,} parameters not filled when the load ended",
        sentence="The load ended before these parameters had their turn: an effect of the failure, not a fault.",
        remedy="Repair what ended the load.",
        evidence=(Evidence(last.position, "last event", last.kind, last.ref),),
    )


RULE = Rule(
    "parameter/never-filled",
    _judge,
    follows=("shard/misplaced", "checkpoint/never-used"),
    follows_anywhere=("shard/divisibility", "host/failed"),
)
