"""A process that was entered in the middle of its life: what of it the session cannot hold."""

from __future__ import annotations

from collections.abc import Iterator

from workbench.diagnosis.case import Case
from workbench.diagnosis.finding import Finding, Rule


def _judge(case: Case) -> Iterator[Finding]:
    at = case.session.manifest.attached_at
    if not at:
        return
    older = sum(not view.was_seen_made for view in case.parameters)
    some = f"{older:,} of {len(case.parameters):,} parameters are older than that, or may be. " if older else ""
    yield Finding(
        class_=RULE.class_,
        severity="note",
        title="attached while the process ran",
        sentence=(
            f"The process was entered at {at}. What it had loaded, decided and launched before is not in this session, "
            f"nor is the rest of a load that was under way. {some}That nothing filled a parameter is said of those "
            "alone that were made since."
        ),
        remedy="To see a load from its beginning start the command under Loadscope: loadscope run --hold -- CMD.",
        evidence=(case.evidence(0, "entered", f"at {at}"),),
    )


RULE = Rule("session/attached-late", _judge)
