"""Compares lanes of two sessions: pairs what is the same event, and says of the rest what became of it."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sessions.matching import matched
from sessions.sequence import Lane, LaneName

Sort = Literal["changed", "missing", "extra", "moved"]
NONE = -1


@dataclass(frozen=True)
class Difference:
    """One event that is not alike on both sides.

    "changed": there on both sides with other facts; "missing": only in the first; "extra": only in the second;
    "moved": on both sides, in another order. `first` and `second` are positions, -1 for a side without it;
    `before` are the positions of the last events of its lane that are alike (-1: none).
    """

    sort: Sort
    kind: str
    rank: int
    first: int
    second: int
    before: tuple[int, int]


Alone = tuple[int, tuple[int, int]]
"""A place in a lane, and the last pair before it."""

Likeness = Callable[[Lane, int, tuple[int, int]], list[object]]
"""Under which names an event may find its other side."""


def _free(waiting: list[int], taken: Mapping[int, int]) -> list[int]:
    while waiting and waiting[-1] in taken:
        waiting.pop()
    return waiting


class Found:
    """Gathers pairs and differences lane by lane."""

    def __init__(self, names: Sequence[tuple[object, ...]], pairs: Mapping[str, array[int]]) -> None:
        self._names, self._pairs = names, pairs
        self.alike = self.beyond = 0
        self.differences: list[Difference] = []

    def compare(self, name: LaneName, first: Lane, second: Lane) -> None:
        """Pair two lanes; what stays alone on one side is missing, extra or moved."""
        pairs = matched(first.keys, second.keys)
        gaps = _gaps(pairs, len(first.keys), len(second.keys))
        for i, j in pairs:
            self._pair(first, second, i, j, (i, j))
        left: list[list[Alone]] = [[], []]
        for number, (a, b, c, d) in enumerate(gaps):
            is_last = number == len(gaps) - 1 or name.is_threaded
            before = (a - 1, c - 1)
            if is_last and (second.is_cut or first.is_cut):
                b, d = self._cut(first, second, (a, b, c, d))  # noqa: PLW2901 - the gap without what is beyond an end
            left[0] += [(i, before) for i in range(a, b)]
            left[1] += [(j, before) for j in range(c, d)]
        self._alone(first, second, left)

    def _cut(self, first: Lane, second: Lane, gap: tuple[int, int, int, int]) -> tuple[int, int]:
        a, b, c, d = gap
        if first.is_cut:
            self.beyond, d = self.beyond + d - c, c
        if second.is_cut:
            self.beyond, b = self.beyond + b - a, a
        return b, d

    def _pair(self, first: Lane, second: Lane, i: int, j: int, before: tuple[int, int]) -> None:
        self._note(first, second, i, j)
        is_unfinished = (first.is_cut and first.is_open[i]) or (second.is_cut and second.is_open[j])
        is_same = first.facts[i] == second.facts[j] and first.is_open[i] == second.is_open[j]
        if is_same or is_unfinished:
            self.alike += 1
        else:
            self._add("changed", first, second, i, j, (before[0] - 1, before[1] - 1))

    def _alone(self, first: Lane, second: Lane, left: Sequence[Sequence[Alone]]) -> None:
        """The same event in another place has moved; a like one in the same place is changed; the rest stays alone."""
        rest: list[Sequence[Alone]] = list(left)
        rounds: tuple[tuple[Sort, Likeness], ...] = (("moved", self._key), ("changed", self._likeness))
        for sort, likeness in rounds:
            waiting: dict[object, list[int]] = defaultdict(list)
            for j, before in reversed(rest[1]):
                for like in likeness(second, j, before):
                    waiting[like].append(j)
            taken: dict[int, int] = {}
            places = dict(rest[0])
            for i, before in rest[0]:
                found = next((w for like in likeness(first, i, before) if (w := _free(waiting[like], taken))), None)
                if found:
                    taken[found.pop()] = i
            for j, i in taken.items():
                self._note(first, second, i, j)
                self._add(sort, first, second, i, j, places[i])
            used = set(taken.values())
            rest = [[one for one in rest[0] if one[0] not in used], [one for one in rest[1] if one[0] not in taken]]
        for i, before in rest[0]:
            self._add("missing", first, second, i, NONE, before)
        for j, before in rest[1]:
            self._add("extra", first, second, NONE, j, before)

    def _key(self, lane: Lane, at: int, before: tuple[int, int]) -> list[object]:
        del before
        return [lane.keys[at]]

    def _likeness(self, lane: Lane, at: int, before: tuple[int, int]) -> list[object]:
        """Events of one kind between the same neighbours which have a part of their key in common."""
        _, *values = self._names[lane.keys[at]]
        return [(lane.kinds[at], n, value, before) for n, value in enumerate(values) if value not in ("", -1)]

    def _note(self, first: Lane, second: Lane, i: int, j: int) -> None:
        a, b = first.positions[i], second.positions[j]
        self._pairs["first"][a], self._pairs["second"][b] = b, a

    def _add(self, sort: Sort, first: Lane, second: Lane, i: int, j: int, before: tuple[int, int]) -> None:
        a = first.positions[i] if i >= 0 else NONE
        b = second.positions[j] if j >= 0 else NONE
        last = tuple(lane.positions[at] if at >= 0 else NONE for lane, at in zip((first, second), before, strict=True))
        kind, rank = (first.kinds[i], first.rank) if i >= 0 else (second.kinds[j], second.rank)
        self.differences.append(Difference(sort, kind, rank, a, b, (last[0], last[1])))


def _gaps(pairs: Sequence[tuple[int, int]], n: int, m: int) -> list[tuple[int, int, int, int]]:
    """What lies between neighbouring pairs on both sides, the last one up to both ends."""
    out: list[tuple[int, int, int, int]] = []
    a = c = 0
    for i, j in pairs:
        if i > a or j > c:
            out.append((a, i, c, j))
        a, c = i + 1, j + 1
    return [*out, (a, n, c, m)]
