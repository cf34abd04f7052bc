"""A scale is zero: whatever it multiplies is lost."""

from __future__ import annotations

from collections.abc import Iterator

from sessions.numerics import numerics
from workbench.diagnosis.case import Case, leaf
from workbench.diagnosis.finding import Finding, Rule


def _judge(case: Case) -> Iterator[Finding]:
    if case.has_failed:
        return
    for view in numerics(case.session):
        # Only as loaded: post-processing may pad scales with zeros, or fold them into another and leave zeros behind.
        if view.when != "loaded" or view.body.role != "scale" or not view.zeros:
            continue
        says = f"{view.zeros:,} of {view.elements:,} scales are zero"
        yield Finding(
            class_=RULE.class_,
            severity="warning",
            title=f"{leaf(view.name)} holds zeros",
            sentence=f"In {view.name} {says}: what they multiply becomes zero.",
            remedy="Look at the scales on disk; a scale that was never written is shown by loadscope coverage.",
            module=view.body.module,
            parameter=view.name,
            rank=view.rank if view.rank >= 0 else None,
            evidence=(case.evidence(view.position, "numerics", says, view.name),),
        )


RULE = Rule("numerics/zero-scale", _judge, follows=("parameter/never-filled",))
