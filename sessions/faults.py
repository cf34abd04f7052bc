"""What is wrong with the filling of each parameter: the elements at fault as boxes, the calls, the slots."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sessions.checkpoint import header
from sessions.coverage import Box, Numbers, elements, grid, marked, overlap
from sessions.ledger import Suspicion, Write, ledger, names_in
from sessions.misplaced import Misplaced, misplaced
from sessions.modules import FUSED
from sessions.parameters import ParameterView
from sessions.session import Session
from sessions.slots import NOTHING, Key, Slot, known_slots, slots

MOST_PAIRS = 1_000
MOST_COMPARED = 4_000


@dataclass(frozen=True)
class Twice:
    """Elements that two writes filled: the second one's values stand there."""

    first: Write
    second: Write
    boxes: tuple[Box, ...]

    @property
    def elements(self) -> int:
        """How many elements."""
        return sum(elements(length) for _, length in self.boxes)


@dataclass(frozen=True)
class Faults:
    """One parameter of one rank. `never` and `twice_boxes` are exact; `twice` names the calls, at most `MOST_PAIRS`.

    `awaited` are tensors of the checkpoint that nobody used and whose names fit what was never written.
    """

    view: ParameterView
    never: tuple[Box, ...] = ()
    twice_boxes: tuple[Box, ...] = ()
    twice: tuple[Twice, ...] = ()
    misplaced: tuple[Misplaced, ...] = ()
    suspicions: tuple[Suspicion, ...] = ()
    unknown_because: str = ""
    slots: tuple[Slot, ...] = field(default=())
    awaited: tuple[str, ...] = ()

    @property
    def boxes(self) -> tuple[object, ...]:
        """The elements at fault, by kind: alike for ranks that have the same fault."""
        return (
            self.never,
            self.twice_boxes,
            tuple((one.kind, one.boxes) for one in self.misplaced),
            self.unknown_because,
        )

    def cells(self, width: int) -> str:
        """The coverage line of the parameter, in which "!" is written once, but from elsewhere."""
        return marked_cells(self.view, self.misplaced, width)

    @property
    def is_clean(self) -> bool:
        """True when every element is known to have been written once, from where it belongs."""
        return not (self.never or self.twice_boxes or self.misplaced or self.unknown_because)


def misplaced_until(
    view: ParameterView, wrong: Mapping[tuple[int, str], tuple[Misplaced, ...]]
) -> tuple[Misplaced, ...]:
    """The misplaced writes of a parameter, as of the event up to which it is looked at."""
    here = wrong.get((view.rank, view.name), ())
    return here if view.until is None else tuple(one for one in here if one.write.at <= view.until)


def marked_cells(view: ParameterView, wrong: Sequence[Misplaced], width: int) -> str:
    """The coverage line of a parameter with its misplaced elements marked "!"."""
    cells = view.cells(width)
    found = grid(view.shape, [box for one in wrong for box in one.boxes]) if wrong else None
    return cells if found is None else marked(found, cells, "!")


def faults(
    session: Session, views: Sequence[ParameterView], among: Sequence[ParameterView] | None = None
) -> tuple[Faults, ...]:
    """What is wrong with these parameters, in their order; clean ones are there too.

    Slots that nothing filled are looked for in the other layers and ranks of `among`, without it of `views`.
    """
    wrong = misplaced(session)
    used = session.kept("tensors used", lambda: _used(session))
    peers = _Peers(views if among is None else among)
    return tuple(_of(session, view, wrong, used, peers) for view in views)


def _used(session: Session) -> set[str]:
    calls = (call for made in ledger(session).calls.values() for call in made)
    return {name for call in calls for name in names_in(call.checkpoint_name)}


def _of(
    session: Session,
    view: ParameterView,
    wrong: Mapping[tuple[int, str], tuple[Misplaced, ...]],
    used: set[str],
    peers: _Peers,
) -> Faults:
    here = misplaced_until(view, wrong)
    said = view.coverage
    if not said.is_known or view.grid is None:
        why = view.unknown_because or "its writes are too many pieces to count"
        return Faults(view, misplaced=here, suspicions=view.suspicions, unknown_because=why)
    if not (said.never_written or said.written_twice or here):
        return Faults(view)
    never = tuple(view.grid.never_boxes)
    twice_boxes = tuple(view.grid.twice_boxes) if said.written_twice else ()
    pairs = tuple(_pairs(view, twice_boxes)) if twice_boxes else ()
    awaited = tuple(_awaited(session, view, used)) if never else ()
    parts = slots(view, never, twice_boxes, peers.of(view) if never else NOTHING)
    return Faults(view, never, twice_boxes, pairs, here, slots=parts, awaited=awaited)


class _Peers:
    """Where the slots of the same parameter lie in other layers and ranks; found only when something is missing."""

    def __init__(self, views: Sequence[ParameterView]) -> None:
        self._views = views
        self._groups: dict[tuple[str, tuple[int, ...]], list[ParameterView]] = {}
        self._known: dict[tuple[str, tuple[int, ...]], dict[Key, Box]] = {}

    def of(self, view: ParameterView) -> Mapping[Key, Box]:
        """The slots of parameters whose names differ in numbers only, of the same shape."""
        if not self._groups:
            for one in self._views:
                self._groups.setdefault((_numberless(one.name), one.shape), []).append(one)
        key = _numberless(view.name), view.shape
        if key not in self._known:
            self._known[key] = known_slots(self._groups.get(key, ()))
        return self._known[key]


def _numberless(name: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


def _pairs(view: ParameterView, twice: Sequence[Box]) -> Iterator[Twice]:
    """Earlier and later writes of the elements in `twice`, the latest first write of each; at most MOST_PAIRS."""
    placed = [(write, box) for write in view.writes for box in view.boxes_of(write)]
    begins = np.array([box[0] for _, box in placed], dtype=np.int64)
    ends = begins + np.array([box[1] for _, box in placed], dtype=np.int64)
    touched = np.zeros(len(placed), dtype=bool)
    for start, length in twice:
        touched |= ((begins < np.array(start) + np.array(length)) & (ends > np.array(start))).all(axis=1)
    chosen = np.flatnonzero(touched)
    found: dict[tuple[int, int], list[Box]] = {}
    if len(chosen) > MOST_COMPARED:
        chosen = _alike(chosen, begins, ends)[:MOST_COMPARED]
    for place, later in enumerate(chosen.tolist()):
        before = chosen[:place]
        hits = before[((begins[before] < ends[later]) & (ends[before] > begins[later])).all(axis=1)]
        for earlier in hits.tolist():
            shared = overlap(placed[earlier][1], placed[later][1])
            if shared is not None:
                found.setdefault((earlier, later), []).append(shared)
        if len(found) >= MOST_PAIRS:
            break
    joined: dict[tuple[int, int], tuple[Write, Write, list[Box]]] = {}
    for (earlier, later), boxes in found.items():
        first, second = placed[earlier][0], placed[later][0]
        joined.setdefault((first.at, second.at), (first, second, []))[2].extend(boxes)
    for first, second, boxes in joined.values():
        yield Twice(first, second, tuple(boxes))


def _alike(chosen: Numbers, begins: Numbers, ends: Numbers) -> Numbers:
    """The boxes again with those of one place beside each other, so that a first part of them has whole pairs."""
    keys = np.concatenate([begins[chosen], ends[chosen]], axis=1)
    order = np.lexsort(keys.T[::-1])
    out: Numbers = chosen[order]
    return out


def _awaited(session: Session, view: ParameterView, used: set[str]) -> Iterator[str]:
    """Unused tensors of the name itself, of the parts of a fused name, and of the experts of a stack."""
    front, _, last = view.name.rpartition(".")
    prefix, _, module = front.rpartition(".")
    names = [view.name, *(f"{prefix}.{part}.{last}" for part in FUSED.get(module, ()))]
    listed = header(session)
    yield from (name for name in names if name in listed and name not in used)
    if module == "experts":
        stacks = session.kept("unused tensors of experts", lambda: _unused_of_experts(listed, used))
        yield from stacks.get(front, ())


def _unused_of_experts(listed: Mapping[str, object], used: set[str]) -> dict[str, list[str]]:
    """Unused tensors by the stack of experts that their names lie in."""
    out: dict[str, list[str]] = defaultdict(list)
    for name in listed:
        front, stack, _ = name.partition(".experts.")
        if stack and name not in used:
            out[f"{front}.experts"].append(name)
    return out
