"""Blocks of fused parts were joined in the order in which they came, so that each lies in another's rows."""

from __future__ import annotations

from collections.abc import Iterator

from inspectors.probe.events import LoaderCalled, WeightsProcessed
from sessions.event import Event
from workbench.diagnosis.case import Case, leaf
from workbench.diagnosis.finding import Finding, Rule

Calls = dict[tuple[int, str, str], tuple[int, LoaderCalled]]
"""Position and facts of a call by rank, module and shard id."""


def _judge(case: Case) -> Iterator[Finding]:
    bodies = ((event, event.body) for event in case.session.of_kinds(WeightsProcessed.kind))
    wrong = [(event, body) for event, body in bodies if isinstance(body, WeightsProcessed) and _is_disordered(body)]
    calls = _calls(case) if wrong else {}
    for event, body in wrong:
        yield _finding(case, event, body, calls)


def _is_disordered(body: WeightsProcessed) -> bool:
    return all(one.isdigit() for one in body.joined) and list(body.joined) != sorted(body.joined, key=int)


def _finding(case: Case, event: Event, body: WeightsProcessed, calls: Calls) -> Finding:
    keys = [(event.rank, body.module, shard) for shard in body.joined]
    parts = [calls[key] for key in keys if key in calls]
    named = " before ".join(leaf(called.checkpoint_name.rpartition(".")[0]) for _, called in parts)
    came, wanted, name = ", ".join(body.joined), ", ".join(sorted(body.joined, key=int)), leaf(body.module)
    return Finding(
        class_=RULE.class_,
        severity="error",
        title=f"{name}: parts joined as they came, {came}",
        sentence=(
            f"The blocks of {name} were held aside while it was loaded, and {leaf(body.method)} joins them as they "
            f"came{f', {named}' if named else ''}. The model expects the parts in the order {wanted}: each lies in the "
            "rows of another, and nothing failed."
        ),
        remedy="Join the parts by their shard ids, as q, k and v are; or write the file in the order of the parts.",
        module=body.module,
        parameter=parts[0][1].parameter if parts else None,
        tensor=parts[0][1].checkpoint_name if parts else None,
        rank=event.rank if event.rank >= 0 else None,
        evidence=(
            *(case.evidence(at, "call", f"shard {called.shard_id}", called.checkpoint_name) for at, called in parts),
            case.evidence(event.position, "joined", came, body.module),
        ),
        steps=(
            ("file", named or came, "plain"),
            ("load", "blocks held aside", "plain"),
            ("process", f"joined {came}", "error"),
        ),
    )


def _calls(case: Case) -> Calls:
    """The calls of blocks; their types are parameters of their own."""
    found: Calls = {}
    for event in case.session.of_kinds(LoaderCalled.kind):
        called = event.body
        if isinstance(called, LoaderCalled) and called.shard_id and not called.parameter.endswith("_type"):
            found[event.rank, called.parameter.rpartition(".")[0], called.shard_id] = event.position, called
    return found


RULE = Rule("shard/joined-order", _judge)
