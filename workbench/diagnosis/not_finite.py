"""A parameter holds not-a-numbers or infinities, as it was loaded or as post-processing left it."""

from __future__ import annotations

from collections.abc import Iterator

from sessions.numerics import NumericsView, numerics
from workbench.diagnosis.case import Case, leaf
from workbench.diagnosis.finding import Finding, Rule


def _judge(case: Case) -> Iterator[Finding]:
    told: set[tuple[str, int]] = set()
    for view in numerics(case.session):
        if view.is_activation or view.is_finite or view.when == "after a call" or (view.name, view.rank) in told:
            continue
        told.add((view.name, view.rank))
        yield _finding(case, view)


def _finding(case: Case, view: NumericsView) -> Finding:
    when = "after the load" if view.when == "loaded" else "once its layer was processed"
    return Finding(
        class_=RULE.class_,
        severity="error",
        title=f"{leaf(view.name)} is not finite",
        sentence=f"{view.name} holds {view.oddities} among {view.elements:,} elements {when}.",
        remedy=f"Look at the tensor on disk, and at what fills {leaf(view.name)} (loadscope coverage).",
        module=view.body.module,
        parameter=view.name,
        rank=view.rank if view.rank >= 0 else None,
        evidence=(case.evidence(view.position, "numerics", f"{view.oddities} of {view.elements:,}", view.name),),
    )


RULE = Rule("numerics/not-finite", _judge, follows_anywhere=("parameter/never-filled",))
