"""Elements filled from elsewhere than their place wants: another part, another projection, another rank's part."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sessions.checkpoint import tensors
from sessions.coverage import Box
from sessions.ledger import Write
from sessions.loaded import tp_of
from sessions.modules import FUSED
from sessions.parameters import ParameterView, parameters
from sessions.session import Session
from sessions.stored import Stored

_LETTERS = {"q": 0, "k": 1, "v": 2}
"""Parts whose order every engine agrees on; that of gate and up differs between kernels of experts."""
_NAMED = ("qkv_proj", "gate_up_proj")
"""Fused modules whose shard ids count, or name, their parts in the order of `FUSED`."""
_EXPERT_PARTS = {"gate_proj": "w1", "w1": "w1", "up_proj": "w3", "w3": "w3", "down_proj": "w2", "w2": "w2"}


@dataclass(frozen=True)
class Misplaced:
    """One write of which the elements, `boxes` of the parameter, hold what belongs elsewhere.

    `kind`: "order" (lies where another part of the parameter belongs), "part" (the tensor is that of another part than
    the shard id) or "rank" (the part of another rank). `wanted` says in words what belongs there.
    """

    parameter: str
    rank: int
    kind: str
    write: Write
    boxes: tuple[Box, ...]
    wanted: str

    @property
    def elements(self) -> int:
        """How many elements."""
        return self.write.elements


def place_of(shard_id: str) -> int | None:
    """Where a recorded shard id stands among the parts of a linear layer; None for one without a known order."""
    try:
        value = ast.literal_eval(shard_id)
    except (ValueError, SyntaxError):
        return None
    first = min(value, default=None) if isinstance(value, tuple) else value
    return first if isinstance(first, int) else _LETTERS.get(str(first))


def misplaced(session: Session) -> Mapping[tuple[int, str], tuple[Misplaced, ...]]:
    """By (rank, parameter), in order: each write once, for the first reason that holds."""
    return session.kept("misplaced", lambda: _misplaced(session))


def _misplaced(session: Session) -> dict[tuple[int, str], tuple[Misplaced, ...]]:
    found: dict[tuple[int, str], list[Misplaced]] = defaultdict(list)
    for one in misplaced_among(parameters(session), tp_of(session), tensors(session).get):
        found[one.rank, one.parameter].append(one)
    return {key: tuple(several) for key, several in found.items()}


def misplaced_among(
    views: Sequence[ParameterView], tp: int, place_of_tensor: Callable[[str], Stored | None]
) -> tuple[Misplaced, ...]:
    """The misplaced writes of these parameters, which are there with all their ranks; each write once."""
    found: dict[int, Misplaced] = {}
    several = (*_of_other_projections(views), *_out_of_order(views), *_of_other_ranks(views, tp, place_of_tensor))
    for one in several:
        found.setdefault(one.write.at, one)
    return tuple(found.values())


def _one(view: ParameterView, kind: str, write: Write, wanted: str) -> Misplaced:
    return Misplaced(view.name, view.rank, kind, write, tuple(view.boxes_of(write)), wanted)


def _of_other_projections(views: Sequence[ParameterView]) -> Iterator[Misplaced]:
    for view in views:
        module = view.module.rpartition(".")[2]
        parts = FUSED[module] if module in _NAMED else ()
        if not parts and module != "experts":
            continue
        for write in view.writes:
            wanted = _wanted_part(write, parts)
            if wanted and write.elements:
                yield _one(view, "part", write, wanted)


def _wanted_part(write: Write, parts: Sequence[str]) -> str:
    """The projection that a shard id means, "" where the tensor is of that one or names none."""
    owner = write.checkpoint_name.rpartition(".")[0].rpartition(".")[2]
    if parts:
        place = place_of(write.shard_id)
        is_known = owner in parts and place is not None and place < len(parts) and not write.shard_id.startswith("(")
        return parts[place] if is_known and place is not None and parts[place] != owner else ""
    shard = write.shard_id.strip("'\"")
    is_wrong = owner in _EXPERT_PARTS and shard in _EXPERT_PARTS.values() and _EXPERT_PARTS[owner] != shard
    return next(part for part, of in _EXPERT_PARTS.items() if of == shard) if is_wrong else ""


def _out_of_order(views: Sequence[ParameterView]) -> Iterator[Misplaced]:
    for view in views:
        writes = [w for w in view.writes if w.elements and w.start and w.shard_id]
        if len(writes) < 2 or any(w.expert_id >= 0 or place_of(w.shard_id) is None for w in writes):
            continue
        parts: dict[int, list[Write]] = defaultdict(list)
        for write in writes:
            parts[place_of(write.shard_id) or 0].append(write)
        dim = _cut_dim([w for part in parts.values() for w in part])
        spans = {place: _span(part, dim) for place, part in parts.items()}
        by_place = sorted(spans, key=lambda place: spans[place])
        starts = {begin for begin, _ in spans.values()}
        if dim is None or by_place == sorted(spans) or len(starts) < len(spans):
            continue
        yield from _wrongly_placed(view, parts, spans, dim)


def _wrongly_placed(
    view: ParameterView, parts: Mapping[int, list[Write]], spans: Mapping[int, tuple[int, int]], dim: int
) -> Iterator[Misplaced]:
    """The parts that do not begin where the parts before them, in order, end."""
    at = min(begin for begin, _ in spans.values())
    for place in sorted(parts):
        begin, end = spans[place]
        if begin != at:
            for write in parts[place]:
                owner = next(
                    (p for p in sorted(spans) if _in_order(spans, p)[0] <= write.start[dim] < _in_order(spans, p)[1]),
                    None,
                )
                shard = parts[owner][0].shard_id.strip("'\"") if owner is not None else ""
                name = f"slot {shard}" if shard else "another slot"
                yield _one(view, "order", write, name)
        at += end - begin


def _in_order(spans: Mapping[int, tuple[int, int]], place: int) -> tuple[int, int]:
    """Where a part would lie if all were in order."""
    first = min(begin for begin, _ in spans.values())
    begin = first + sum(spans[p][1] - spans[p][0] for p in spans if p < place)
    return begin, begin + spans[place][1] - spans[place][0]


def _cut_dim(writes: Sequence[Write]) -> int | None:
    """The one dimension along which writes differ, None for several."""
    kinds = [{(w.start[d], w.length[d]) for w in writes if d < len(w.start)} for d in range(len(writes[0].start))]
    moving = [d for d, kind in enumerate(kinds) if len(kind) > 1]
    return moving[0] if len(moving) == 1 else None


def _span(writes: Sequence[Write], dim: int | None) -> tuple[int, int]:
    at = dim or 0
    return min(w.start[at] for w in writes), max(w.start[at] + w.length[at] for w in writes)


def _of_other_ranks(
    views: Sequence[ParameterView], tp: int, place_of_tensor: Callable[[str], Stored | None]
) -> Iterator[Misplaced]:
    """Where each rank takes one of `tp` equal parts of a tensor, rank r takes part r."""
    if tp < 2 or {view.rank for view in views} != set(range(tp)):
        return
    groups: dict[tuple[str, str, str, int], list[tuple[ParameterView, Write]]] = defaultdict(list)
    for view in views:
        for write in view.writes:
            if write.elements and write.source_start:
                key = view.name, write.checkpoint_name, write.shard_id, write.expert_id
                groups[key].append((view, write))
    for (_, tensor, _, _), writes in groups.items():
        if len(writes) == tp and len({view.rank for view, _ in writes}) == tp:
            one = place_of_tensor(tensor)
            yield from _other_parts(one, writes, tp) if one is not None else ()


def _other_parts(one: Stored, writes: Sequence[tuple[ParameterView, Write]], tp: int) -> Iterator[Misplaced]:
    if any(len(w.source_length) != len(one.shape) for _, w in writes):
        return
    lengths = {w.source_length for _, w in writes}
    cut = [d for d, n in enumerate(one.shape) if any(length[d] != n for length in lengths)]
    if len(lengths) != 1 or len(cut) != 1:
        return
    dim, length = cut[0], next(iter(lengths))[cut[0]]
    if length * tp != one.shape[dim]:
        return
    for view, write in writes:
        if write.source_start[dim] != view.rank * length:
            begin = view.rank * length
            axis = "rows" if dim == 0 else "columns" if dim == 1 else f"dimension {dim}:"
            yield _one(view, "rank", write, f"{axis} {begin}–{begin + length - 1}, rank {view.rank}'s part")
