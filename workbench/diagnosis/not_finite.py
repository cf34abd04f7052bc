"""A parameter holds not-a-numbers or infinities, or a forward pass brings them up: the first place where it does."""

from __future__ import annotations

from collections.abc import Iterator

from sessions.numerics import NumericsView, numerics
from workbench.diagnosis.case import Case, leaf
from workbench.diagnosis.finding import Finding, Rule


def _judge(case: Case) -> Iterator[Finding]:
    told: set[tuple[str, int]] = set()
    passed: set[int] = set()
    for view in numerics(case.session):
        if not view.is_activation:
            if not view.is_finite and view.when != "after a call" and (view.name, view.rank) not in told:
                told.add((view.name, view.rank))
                yield _of_parameter(case, view)
        elif view.rank not in passed and _is_wrong(view):
            passed.add(view.rank)
            yield _of_activation(case, view)


def _is_wrong(view: NumericsView) -> bool:
    """Infinities that go into a module may be meant: masks are made of them."""
    return bool(view.body.nan_count) or (view.body.role == "output" and bool(view.body.inf_count))


def _told(view: NumericsView) -> str:
    counts = ((view.body.nan_count, "NaN"), (view.body.inf_count, "Inf"))
    return " and ".join(f"{count:,} {word}" for count, word in counts if count)


def _of_parameter(case: Case, view: NumericsView) -> Finding:
    when = "after the load" if view.when == "loaded" else "once its layer was processed"
    return Finding(
        class_=RULE.class_,
        severity="error",
        title=f"{leaf(view.name)} is not finite",
        sentence=f"{view.name} holds {_told(view)} among {view.elements:,} elements {when}.",
        remedy=f"Look at the tensor on disk, and at what fills {leaf(view.name)} (loadscope coverage).",
        module=view.body.module,
        parameter=view.name,
        rank=_rank(view),
        evidence=(case.evidence(view.position, "numerics", f"{_told(view)} of {view.elements:,}", view.name),),
    )


def _of_activation(case: Case, view: NumericsView) -> Finding:
    name = view.name or "the model"
    if view.body.role == "output":
        how = f"{name} is the first whose output holds {_told(view)}; what went into it was sound"
    else:
        how = f"{name} is given {_told(view)}, and no module before it put them out: they are made between modules"
    return Finding(
        class_=RULE.class_,
        severity="error",
        title=f"{_told(view).rpartition(' ')[2]} begins at {leaf(view.name) or name}",
        sentence=f"In the first forward pass {how}.",
        remedy="Compare the module's weights and scales with the checkpoint; loadscope compare shows how it departs.",
        module=view.name or None,
        rank=_rank(view),
        evidence=(case.evidence(view.position, view.body.role, f"{_told(view)} of {view.elements:,}", view.name),),
    )


def _rank(view: NumericsView) -> int | None:
    return view.rank if view.rank >= 0 else None


RULE = Rule(
    "numerics/not-finite",
    _judge,
    follows=("numerics/zero-scale", "precision/contradiction"),
    follows_anywhere=("parameter/never-filled",),
)
