"""A forward pass brings up not-a-numbers or infinities: the first module at which they are seen."""

from __future__ import annotations

from collections.abc import Iterator

from sessions.numerics import NumericsView, numerics
from workbench.diagnosis.case import Case, leaf
from workbench.diagnosis.finding import Finding, Rule


def _judge(case: Case) -> Iterator[Finding]:
    passed: set[int] = set()
    for view in numerics(case.session):
        if view.is_activation and view.rank not in passed and _is_wrong(view):
            passed.add(view.rank)
            yield _finding(case, view)


def _is_wrong(view: NumericsView) -> bool:
    """Infinities that go into a module may be meant: masks are made of them."""
    return bool(view.body.nan_count) or (view.body.role == "output" and bool(view.body.inf_count))


def _finding(case: Case, view: NumericsView) -> Finding:
    name = view.name or "the model"
    if view.body.role == "output":
        how = f"{name} is the first whose output holds {view.oddities}; what went into it was sound"
    else:
        how = f"{name} is given {view.oddities}, and no module before it put them out: they are made between modules"
    return Finding(
        class_=RULE.class_,
        severity="error",
        title=f"{view.oddities.rpartition(' ')[2]} begins at {leaf(view.name) or name}",
        sentence=f"In the first forward pass {how}.",
        remedy="Compare the module's weights and scales with the checkpoint; loadscope compare shows how it departs.",
        module=view.name or None,
        rank=view.rank if view.rank >= 0 else None,
        evidence=(case.evidence(view.position, view.body.role, f"{view.oddities} of {view.elements:,}", view.name),),
    )


RULE = Rule(
    "numerics/first-not-finite",
    _judge,
    follows=("numerics/not-finite", "numerics/zero-scale", "precision/contradiction"),
    follows_anywhere=("parameter/never-filled",),
)
