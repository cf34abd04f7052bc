"""The numbers of parameters and activations as they were summarized, and what a scale's say of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from inspectors.probe.events import ValueSummarized
from sessions.session import Session

WHEN = {
    "weight.load": "after a call",
    "weight.map": "loaded",
    "weights.process": "processed",
    "forward.run": "first pass",
}
"""When a statistic was taken, by the stage of its event."""


@dataclass(frozen=True)
class NumericsView:
    """One summary. `name` is the parameter, or the module of an activation; `when` one of the values of WHEN."""

    name: str
    rank: int
    when: str
    position: int
    body: ValueSummarized

    @property
    def is_activation(self) -> bool:
        """True for what goes into or comes out of a module."""
        return self.body.role in {"input", "output"}

    @property
    def elements(self) -> int:
        """How many there are; 0 where an old recording does not say."""
        return math.prod(self.body.shape) if self.body.dtype else 0

    @property
    def zeros(self) -> int:
        """How many are zero."""
        return round(self.body.zero_fraction * self.elements)

    @property
    def is_finite(self) -> bool:
        """True when no element is a not-a-number or an infinity."""
        return not self.body.nan_count and not self.body.inf_count

    @property
    def oddities(self) -> str:
        """`3 NaN and 1 Inf`, "" when all elements are finite."""
        counts = ((self.body.nan_count, "NaN"), (self.body.inf_count, "Inf"))
        return " and ".join(f"{count:,} {word}" for count, word in counts if count)

    @property
    def spread(self) -> float | None:
        """Of a scale: how many times the largest is as large as the smallest; None where one is not positive."""
        body = self.body
        is_positive = body.role == "scale" and body.minimum > 0 and body.maximum > 0
        return body.maximum / body.minimum if is_positive else None


def numerics(session: Session) -> tuple[NumericsView, ...]:
    """Every summary of the session in the order in which they were taken; empty below the level `values`."""
    return session.kept("numerics", lambda: _numerics(session))


def numerics_of(session: Session) -> Mapping[tuple[str, int], tuple[NumericsView, ...]]:
    """The summaries by the name of the parameter or module and the rank."""
    return session.kept("numerics by name", lambda: _by_name(session))


def _numerics(session: Session) -> tuple[NumericsView, ...]:
    found = []
    for event in session.of_kinds("value.summarized"):
        body = event.body
        if isinstance(body, ValueSummarized):
            name = body.parameter or body.module
            found.append(NumericsView(name, event.rank, WHEN.get(event.stage, event.stage), event.position, body))
    return tuple(found)


def _by_name(session: Session) -> Mapping[tuple[str, int], tuple[NumericsView, ...]]:
    found: dict[tuple[str, int], list[NumericsView]] = {}
    for view in numerics(session):
        found.setdefault((view.name, view.rank), []).append(view)
    return {key: tuple(views) for key, views in found.items()}
