"""Far more of a quantized weight lies at the end of its dtype than its scales put there: it was clipped."""

from __future__ import annotations

import math
from collections.abc import Iterator

from sessions.numerics import NumericsView, numerics
from workbench.diagnosis.case import Case, leaf
from workbench.diagnosis.finding import Finding, Rule

LEAST_FRACTION = 0.05
"""Of all elements. Formats that take the absmax as the end put there one element a scale, and few more by rounding."""

TIMES_EXPECTED = 8
_QUANTIZED = ("float8", "int8")


def _judge(case: Case) -> Iterator[Finding]:
    loaded = [view for view in numerics(case.session) if view.when == "loaded"]
    scales: dict[tuple[str, int], int] = {}
    for view in loaded:
        if view.body.role == "scale":
            key = (view.body.module, view.rank)
            scales[key] = max(scales.get(key, 0), math.prod(view.body.shape))
    for view in loaded:
        is_weight = view.body.role == "parameter" and view.body.dtype.startswith(_QUANTIZED)
        if is_weight and view.body.saturated_fraction > most_expected(view.elements, _scales(view, scales)):
            yield _finding(case, view)


def _scales(view: NumericsView, scales: dict[tuple[str, int], int]) -> int:
    return scales.get((view.body.module, view.rank), 0)


def most_expected(elements: int, scales: int) -> float:
    """The largest fraction at the end that is no news."""
    return max(LEAST_FRACTION, TIMES_EXPECTED * scales / max(1, elements))


def _finding(case: Case, view: NumericsView) -> Finding:
    says = f"{100 * view.body.saturated_fraction:.1f} % of {view.elements:,} elements are ±{view.body.absmax:g}"
    return Finding(
        class_=RULE.class_,
        severity="warning",
        title=f"{leaf(view.name)} is clipped",
        sentence=f"In {view.name} {says}, the end of {view.body.dtype}: its scales are too small for it.",
        remedy="Quantize it again with scales from its absmax, or look which scales it was stored with.",
        module=view.body.module,
        parameter=view.name,
        rank=view.rank if view.rank >= 0 else None,
        evidence=(case.evidence(view.position, "numerics", says, view.name),),
    )


RULE = Rule("numerics/saturated", _judge)
