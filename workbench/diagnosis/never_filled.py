"""Parameters that no write reached, wholly or in part; while a load fails that is only what it left undone."""

from __future__ import annotations

from collections.abc import Iterator

from sessions.modules import is_companion
from sessions.parameters import ParameterView
from workbench.diagnosis.case import Case, leaf
from workbench.diagnosis.finding import Evidence, Finding, Rule

MOST_NAMED = 3


def _judge(case: Case) -> Iterator[Finding]:
    if case.has_failed_loading:
        yield from _left_undone(case)
        return
    rows = case.session.rows("model.loaded", ("has_report",))
    reported = {row[5]: row[6] is None or bool(row[6]) for row in rows}
    silent = {rank for rank, has_report in reported.items() if not has_report}
    yield from _without_a_call(case, silent)
    numbers = {one.name for one in case.consumption if one.name not in case.header and one.shape in {(), (1,)}}
    for view in case.parameters:
        told_at, _ = case.never_filled.get((view.rank, view.name), (None, ""))
        is_open = not view.is_final and (told_at is None or view.was_seen_made)
        if is_open or (view.rank in silent and not view.loader_calls):
            continue
        if _is_held_aside(view) or _took_numbers(view, numbers):
            continue
        if told_at is not None and view.rank in case.initialising_ranks:
            continue  # the engine put something else there
        missing = view.coverage.never_written
        # without a call it may be tied to another parameter or computed later: the engine's own report decides
        is_seen = bool(missing) and (bool(view.loader_calls) or view.rank not in reported)
        if told_at is not None or is_seen:
            yield _finding(case, view, missing, told_at)


def _is_held_aside(view: ParameterView) -> bool:
    """A parameter that had no shape, and whose loaders wrote nothing: they keep the blocks until post-processing."""
    return bool(view.loader_calls) and not view.writes and not view.shape and "Uninitialized" in view.parameter_class


def _took_numbers(view: ParameterView, numbers: set[str]) -> bool:
    """A parameter whose loaders wrote nothing, and were given single numbers which the engine's reader made.

    SGLang yields the type of every tensor of a GGUF file in this way; experts keep it as an attribute.
    """
    return bool(view.loader_calls) and not view.writes and all(c.checkpoint_name in numbers for c in view.loader_calls)


def _without_a_call(case: Case, ranks: set[int]) -> Iterator[Finding]:
    """Parameters that no loader call filled, on ranks whose engine does not say whether that is meant."""
    processed = {row[6] for row in case.session.rows("weights.processed", ("module",))}
    groups: dict[str, list[ParameterView]] = {}
    for view in case.parameters:
        is_set_later = view.module in processed and is_companion(leaf(view.name))
        if view.rank in ranks and view.is_final and not view.loader_calls and not is_set_later:
            part = next((part for part in view.name.split(".") if part != "model"), view.name)
            groups.setdefault(part, []).append(view)
    for part, views in groups.items():
        named = ", ".join(dict.fromkeys(view.name for view in views[:MOST_NAMED]))
        names = {view.name for view in views}
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        yield Finding(
            class_=RULE.class_,
            severity="warning",
            title=f"no loader call filled {len(names)} parameter{'s' if len(names) > 1 else ''} of {part}",
            sentence=(
                f"The engine gave these no checkpoint tensor and says nothing of it: {named}{more}. They hold what "
                "they were made with."
            ),
            remedy="See whether the checkpoint has tensors for them under another name, or whether they are unused.",
            module=views[0].module,
            parameter=views[0].name if len(names) == 1 else None,
            rank=views[0].rank if len({view.rank for view in views}) == 1 else None,
            evidence=(case.evidence(views[0].position, "parameter", views[0].name),),
        )


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
    undone = [
        v
        for v in case.parameters
        if not v.loader_calls and v.was_seen_made and (v.rank, v.name) not in case.never_filled
    ]
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
    follows=("shard/misplaced", "checkpoint/never-used", "scale/dropped", "checkpoint/incomplete"),
    follows_anywhere=("shard/divisibility", "host/failed"),
)
