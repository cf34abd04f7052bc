"""Blocks of fused parts were joined in the order in which they came, so that each lies in another's rows."""

from __future__ import annotations

from collections.abc import Iterator

from inspectors.probe.events import LoaderCalled, WeightsProcessed
from sessions.event import Event
from workbench.diagnosis.case import Case, leaf
from workbench.diagnosis.finding import Finding, Rule


def _judge(case: Case) -> Iterator[Finding]:
    for event in case.session.of_kinds(WeightsProcessed.kind):
        body = event.body
        if not isinstance(body, WeightsProcessed) or not all(one.isdigit() for one in body.joined):
            continue
        if list(body.joined) != sorted(body.joined, key=int):
            yield _finding(case, event, body)


def _finding(case: Case, event: Event, body: WeightsProcessed) -> Finding:
    calls = _calls(case, event.rank, body)
    parts = [calls[shard] for shard in body.joined if shard in calls]
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


def _calls(case: Case, rank: int, body: WeightsProcessed) -> dict[str, tuple[int, LoaderCalled]]:
    """The calls of the module's blocks by shard id; the types of blocks are parameters of their own."""
    found: dict[str, tuple[int, LoaderCalled]] = {}
    for event in case.session.of_kinds(LoaderCalled.kind):
        called = event.body
        if event.rank != rank or not isinstance(called, LoaderCalled) or called.shard_id not in body.joined:
            continue
        module, _, name = called.parameter.rpartition(".")
        if module == body.module and not name.endswith("_type"):
            found[called.shard_id] = event.position, called
    return found


RULE = Rule("shard/joined-order", _judge)
