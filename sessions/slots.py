"""The slots of a parameter: which rows belong to which shard id and expert, also of those that nothing filled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from sessions.coverage import Box, elements, overlap
from sessions.ledger import Write
from sessions.parameters import ParameterView

_EXPECTED = {"qkv_proj": ("'q'", "'k'", "'v'"), "gate_up_proj": ("0", "1")}
"""The shard ids by which the parts of a fused module are called, in order."""

MOST_PEERS = 4
"""Other layers and ranks that are asked where their slots lie; what is missing in all of those is missing in most."""

Key = tuple[int, str]
"""Expert and shard id."""


NOTHING: Mapping[Key, Box] = {}


@dataclass(frozen=True)
class Slot:
    """One shard id, or one shard of one expert (-1: none): its box, and how much of it was never and twice written.

    `is_inferred`: no call used it; its box is that of the same slot elsewhere, or what is left.
    """

    shard_id: str
    expert_id: int
    box: Box
    never: int
    twice: int
    tensors: tuple[str, ...]
    calls: tuple[int, ...]
    is_inferred: bool = False

    @property
    def elements(self) -> int:
        """How many elements it has."""
        return elements(self.box[1])

    @property
    def label(self) -> str:
        """`k`, `w1 of expert 3`, `expert 3`."""
        shard = self.shard_id.strip("'\"")
        if self.expert_id < 0:
            return shard
        return f"{shard} of expert {self.expert_id}" if shard else f"expert {self.expert_id}"


def slots(
    view: ParameterView, never: Sequence[Box], twice: Sequence[Box], elsewhere: Mapping[Key, Box] = NOTHING
) -> tuple[Slot, ...]:
    """The slots of a parameter in memory order; () for one that is filled as a whole.

    `elsewhere` are the slots of the same parameter in other layers and ranks: where one lies that nothing filled here.
    """
    made = _made(view)
    found = [
        Slot(
            key[1], key[0], box, _shared(never, box), _shared(twice, box),
            tuple(dict.fromkeys(w.checkpoint_name for w in writes)), tuple(dict.fromkeys(w.position for w in writes)),
        )
        for key, (box, writes) in made.items()
    ]  # fmt: skip
    left = [box for box in never if not any(overlap(box, slot.box) for slot in found)]
    for key, box in _inferred(view, left, {key: box for key, (box, _) in made.items()}, elsewhere):
        found.append(Slot(key[1], key[0], box, _shared(never, box), 0, (), (), is_inferred=True))
    return tuple(sorted(found, key=lambda slot: (slot.box[0], slot.expert_id, slot.shard_id)))


def _made(view: ParameterView) -> dict[Key, tuple[Box, list[Write]]]:
    groups: dict[Key, list[Write]] = defaultdict(list)
    for write in view.writes:
        if write.elements and write.position >= 0:
            groups[write.expert_id, write.shard_id].append(write)
    if set(groups) == {(-1, "")}:
        return {}
    bounds = {key: _bound([box for w in writes for box in view.boxes_of(w)]) for key, writes in groups.items()}
    return {key: (box, groups[key]) for key, box in bounds.items() if box is not None}


def _bound(found: Sequence[Box]) -> Box | None:
    """The smallest box around boxes."""
    if len(found) < 2:
        return found[0] if found else None
    start = tuple(min(values) for values in zip(*(box[0] for box in found), strict=True))
    ends = zip(*(tuple(a + n for a, n in zip(*box, strict=True)) for box in found), strict=True)
    return start, tuple(max(values) - a for values, a in zip(ends, start, strict=True))


def _shared(boxes: Sequence[Box], box: Box) -> int:
    return sum(elements(shared[1]) for one in boxes if (shared := overlap(one, box)) is not None)


def _inferred(
    view: ParameterView, left: Sequence[Box], made: Mapping[Key, Box], elsewhere: Mapping[Key, Box]
) -> Iterator[tuple[Key, Box]]:
    """Slots for boxes that no call touched: as in other layers and ranks, as in other experts, else the one left."""
    if not left:
        return
    known = {**elsewhere, **_of_experts(view, {**elsewhere, **made})}
    fitting = {key: box for key, box in known.items() if key not in made and any(overlap(box, one) for one in left)}
    if fitting:
        yield from fitting.items()
        return
    wanted = [shard for shard in _EXPECTED.get(view.module.rpartition(".")[2], ()) if (-1, shard) not in made]
    if len(wanted) == len(left) == 1 and made:
        yield (-1, wanted[0]), left[0]


def known_slots(peers: Sequence[ParameterView]) -> dict[Key, Box]:
    """Where the slots of parameters of one shape lie, by the first of them that has each."""
    known: dict[Key, Box] = {}
    for peer in islice((peer for peer in peers if peer.writes), MOST_PEERS):
        for key, (box, _) in _made(peer).items():
            known.setdefault(key, box)
    return known


def _of_experts(view: ParameterView, known: Mapping[Key, Box]) -> dict[Key, Box]:
    """The slots of every expert of a stack, moved along its first dimension from one that is known."""
    out: dict[Key, Box] = {}
    seen: set[str] = set()
    for (expert, shard), (start, length) in known.items():
        if expert >= 0 and length[:1] == (1,) and shard not in seen:
            seen.add(shard)
            first = start[0] - expert  # with experts on several ranks, the number of this rank's first one
            for row in range(view.shape[0]):
                out.setdefault((row - first, shard), ((row, *start[1:]), length))
    return out
