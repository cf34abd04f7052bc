"""Which loader call is which: numbers those of each rank, and names each so that other ranks can be asked for it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from inspectors.probe.events import LoaderCalled

_NAMES = ("parameter", "checkpoint_name", "shard_id", "expert_id")


@dataclass(frozen=True)
class CallPlace:
    """One loader call of a rank, the `number`-th; `occurrence` counts the calls that are alike in all four names."""

    rank: int
    number: int
    parameter: str
    checkpoint_name: str
    shard_id: str
    expert_id: int
    occurrence: int

    def told(self) -> dict[str, Any]:
        """What is the same on every rank that makes this call."""
        return {**{name: getattr(self, name) for name in _NAMES}, "occurrence": self.occurrence}

    @property
    def names(self) -> tuple[str, str, str, int]:
        """What tells it from the other calls, but for the occurrence."""
        return self.parameter, self.checkpoint_name, self.shard_id, self.expert_id


class CallPlaces:
    """The loader calls of this process: how many each rank has begun, and which are over. One look-up a call."""

    def __init__(self) -> None:
        self._numbers: dict[int, Iterator[int]] = {}
        # Numbers instead of names: a load has a hundred thousand calls, and nobody reads them but `has_left`.
        self._begun: Counter[int] = Counter()
        self._left: Counter[int] = Counter()
        self.last: CallPlace | None = None

    def begun(self, body: LoaderCalled, rank: int) -> CallPlace:
        """A loader call begins."""
        names = (body.parameter, body.checkpoint_name, body.shard_id, body.expert_id)
        number = next(self._numbers.setdefault(rank, itertools.count(1)))
        key = hash((rank, *names))
        self._begun[key] += 1
        self.last = CallPlace(rank, number, *names, self._begun[key])
        return self.last

    def ended(self, place: CallPlace) -> None:
        """It has returned or raised."""
        self._left[hash((place.rank, *place.names))] += 1

    def has_left(self, said: dict[str, Any], rank: int) -> bool:
        """True when that rank has made the call that another rank told of and is out of it."""
        names = (*(str(said[name]) for name in _NAMES[:3]), int(said["expert_id"]))
        return self._left[hash((rank, *names))] >= int(said["occurrence"])
