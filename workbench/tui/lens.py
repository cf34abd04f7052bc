"""How a list is looked at: rank, filter, search, order and folds; and a place one can come back to."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Lens:
    """The state of one question's list. `rank` None is all ranks; `folds` are rows turned from their first state.

    `column` is the chosen one of a list that has cells side by side (None: the view's own choice), `variant` the number
    of the other view of the same.
    """

    rank: int | None = None
    filter: str = ""
    search: str = ""
    is_only_trouble: bool = False
    order: int = 0
    folds: frozenset[Hashable] = frozenset()
    column: int | None = None
    variant: int = 0

    def toggled(self, fold: Hashable) -> Lens:
        """The same lens with one row's fold turned."""
        return replace(self, folds=self.folds ^ {fold})


@dataclass(frozen=True)
class Place:
    """Where one stands: a question, the row (by identity) and what `now` is there (None: the end)."""

    look: str
    row: Hashable = None
    now: int | None = None
    position: int | None = None
