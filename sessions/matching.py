"""Pairs two sequences of numbers as a diff does: common ends, what is unique in both, then the shortest edit."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

MOST_EDITS = 800
"""Where more than so many edits are needed between two anchors, equal numbers are paired by how often they came."""

Numbers = Sequence[int]
Pair = tuple[int, int]
Range = tuple[int, int, int, int]


def matched(first: Numbers, second: Numbers) -> list[Pair]:
    """Pairs of places with equal numbers, both sides ascending."""
    out: list[Pair] = []
    todo: list[Range] = [(0, len(first), 0, len(second))]
    while todo:
        a, b, c, d = _trimmed(first, second, todo.pop(), out)
        if a == b or c == d:
            continue
        anchors = _unique(first, second, (a, b, c, d))
        if not anchors:
            out += _edited(first, second, (a, b, c, d))
            continue
        for i, j in anchors:
            todo.append((a, i, c, j))
            a, c = i + 1, j + 1
        out += anchors
        todo.append((a, b, c, d))
    return sorted(out)


def _trimmed(first: Numbers, second: Numbers, place: Range, out: list[Pair]) -> Range:
    """The range without its common beginning and end, which go to `out`."""
    a, b, c, d = place
    while a < b and c < d and first[a] == second[c]:
        out.append((a, c))
        a, c = a + 1, c + 1
    while a < b and c < d and first[b - 1] == second[d - 1]:
        b, d = b - 1, d - 1
        out.append((b, d))
    return a, b, c, d


def _unique(first: Numbers, second: Numbers, place: Range) -> list[Pair]:
    """What occurs once on each side, as the longest ascending run of pairs."""
    a, b, c, d = place
    here, there = Counter(first[a:b]), Counter(second[c:d])
    at = {second[j]: j for j in range(c, d) if there[second[j]] == 1}
    return _ascending([(i, at[first[i]]) for i in range(a, b) if here[first[i]] == 1 and first[i] in at])


def _ascending(pairs: Sequence[Pair]) -> list[Pair]:
    """The longest run of pairs, ascending in the first place, that ascends in the second one too."""
    ends: list[int] = []
    chosen: list[int] = []
    before = [-1] * len(pairs)
    for n, (_, j) in enumerate(pairs):
        at = bisect_left(ends, j)
        before[n] = chosen[at - 1] if at else -1
        ends[at : at + 1] = [j]
        chosen[at : at + 1] = [n]
    out: list[Pair] = []
    n = chosen[-1] if chosen else -1
    while n >= 0:
        out.append(pairs[n])
        n = before[n]
    return out[::-1]


def _edited(first: Numbers, second: Numbers, place: Range) -> list[Pair]:
    """The pairs of a shortest edit (E. W. Myers, 1986), or by occurrence where that would take too long."""
    a, b, c, d = place
    n, m = b - a, d - c
    reach = {1: 0}
    history: list[dict[int, int]] = []
    for edits in range(min(n + m, MOST_EDITS) + 1):
        history.append(dict(reach))
        for k in range(-edits, edits + 1, 2):
            is_down = k == -edits or (k != edits and reach[k - 1] < reach[k + 1])
            x = reach[k + 1] if is_down else reach[k - 1] + 1
            y = x - k
            while x < n and y < m and first[a + x] == second[c + y]:
                x, y = x + 1, y + 1
            reach[k] = x
            if x >= n and y >= m:
                return [(a + i, c + j) for i, j in _walked_back(history, n, m)]
    return _by_occurrence(first, second, place)


def _walked_back(history: Sequence[dict[int, int]], x: int, y: int) -> list[Pair]:
    out: list[Pair] = []
    for edits in range(len(history) - 1, -1, -1):
        reach, k = history[edits], x - y
        is_down = k == -edits or (k != edits and reach[k - 1] < reach[k + 1])
        before = reach[k + 1] if is_down else reach[k - 1]
        while edits and min(x, y) > 0 and x > (before if is_down else before + 1):
            x, y = x - 1, y - 1
            out.append((x, y))
        if not edits:
            while x > 0 and y > 0:
                x, y = x - 1, y - 1
                out.append((x, y))
            break
        x, y = before, before - (k + 1 if is_down else k - 1)
    return out[::-1]


def _by_occurrence(first: Numbers, second: Numbers, place: Range) -> list[Pair]:
    a, b, c, d = place
    seen: Counter[int] = Counter()
    at: dict[tuple[int, int], int] = {}
    for j in range(c, d):
        seen[second[j]] += 1
        at[second[j], seen[second[j]]] = j
    seen.clear()
    pairs: list[Pair] = []
    for i in range(a, b):
        seen[first[i]] += 1
        j = at.get((first[i], seen[first[i]]), -1)
        if j >= 0:
            pairs.append((i, j))
    return _ascending(pairs)
