"""Gathers what `loadscope coverage` tells: faults of parameters, and what of the checkpoint nobody took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sessions.checkpoint import Consumption, consumption, tensors, unconsumed, writes_by_tensor
from sessions.coverage import Box
from sessions.faults import Faults, faults
from sessions.loaded import tp_of
from sessions.parameters import ParameterView, parameters
from sessions.session import Session
from sessions.stored import Stored
from sessions.summary import CoverageTotals, summary


@dataclass(frozen=True)
class Left:
    """A checkpoint tensor of which something was left: all of it (`calls` 0 and no writes), or `never` of it.

    `never` are boxes of the tensor as it is read (`tensor.shape`); None where the writes do not tell. `taken_by` are
    ranks with their shares in boxes.
    """

    consumption: Consumption
    tensor: Stored | None
    never: tuple[Box, ...] | None
    taken_by: tuple[tuple[int, tuple[Box, ...]], ...]

    @property
    def is_untouched(self) -> bool:
        """True when no call used it at all."""
        return self.consumption.calls == 0


@dataclass(frozen=True)
class Report:
    """`shown` are the parameters to tell of, `total` how many were looked at; `left` is empty when a filter is set."""

    session: Session
    totals: CoverageTotals
    shown: tuple[Faults, ...]
    total: int
    whole: int
    left: tuple[Left, ...]
    ranks: tuple[int, ...]
    tp: int

    @property
    def is_clean(self) -> bool:
        """True when every parameter looked at was filled once, from where it belongs."""
        return self.whole == self.total


def gathered(session: Session, *, pattern: str = "", rank: int | None = None, shows_all: bool = False) -> Report | None:
    """What there is to tell; None for a session that holds no writes."""
    totals = summary(session).coverage
    if totals is None:
        return None
    views = parameters(session)
    found = faults(session, views)
    looked_at = [one for one in found if fits(one.view, pattern, rank)]
    odd = [one for one in looked_at if not one.is_clean]
    left = () if pattern or rank is not None else tuple(_left(session))
    return Report(
        session=session,
        totals=totals,
        shown=tuple(looked_at if shows_all else odd),
        total=len(looked_at),
        whole=len(looked_at) - len(odd),
        left=left,
        ranks=tuple(sorted({view.rank for view in views})),
        tp=tp_of(session),
    )


def fits(view: ParameterView, pattern: str, rank: int | None) -> bool:
    """True for a parameter of that rank whose name holds the pattern, or matches it where it has wildcards."""
    if rank is not None and view.rank != rank:
        return False
    return fnmatchcase(view.name, pattern) if set(pattern) & set("*?") else pattern in view.name


def _left(session: Session) -> Sequence[Left]:
    places, writes = tensors(session), writes_by_tensor(session)
    out = []
    for one in consumption(session):
        if one.never_consumed_bytes == 0:
            continue
        place = places.get(one.name)
        made = writes.get(one.name, ())
        if one.calls == 0 and not made:
            out.append(Left(one, place, ((((0,) * len(one.shape)), place.shape),) if place is not None else None, ()))
            continue
        never = unconsumed(place, [write for _, _, write in made]) if place is not None else None
        taken: dict[int, list[Box]] = defaultdict(list)
        for rank, _, write in made:
            if write.source_length:
                taken[rank].append((write.source_start, write.source_length))
        shares = tuple((rank, tuple(dict.fromkeys(boxes))) for rank, boxes in sorted(taken.items()))
        out.append(Left(one, place, None if never is None else tuple(never), shares))
    return out
