"""Which module and which weight of a candidate corresponds to which of its reference: by name, slots and places."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from workbench.compare.capture import Side, Slot

Place = tuple[str, str, int]


@dataclass(frozen=True)
class Port:
    """A module's output on one side, or one slot of it (None: all of it)."""

    module: str
    slot: Slot | None = None


@dataclass(frozen=True)
class Pair:
    """Two outputs that should be alike. `slot` is the name of a slot of the fused `module`, "" for a whole output."""

    module: str
    slot: str
    reference: Port
    candidate: Port


@dataclass(frozen=True)
class Unpaired:
    """Something that was not compared, on which side ("reference", "candidate" or "both"), and why."""

    name: str
    side: str
    why: str


def pair_outputs(reference: Side, candidate: Side) -> tuple[tuple[Pair, ...], tuple[Unpaired, ...]]:
    """Pairs in the order in which the candidate's modules finished, and the modules without a partner.

    A module pairs with that of its name, slot by slot where it is fused; a fused one also with the modules, on the
    other side, that its slots were filled from on disk.
    """
    pairs: list[Pair] = []
    for module in candidate.modules:
        pairs += _pairs_of(module, reference, candidate)
    used = ({one.reference.module for one in pairs}, {one.candidate.module for one in pairs})
    return tuple(pairs), (
        *_left_over(reference.modules, used[0], "reference"),
        *_left_over(candidate.modules, used[1], "candidate"),
    )


def _pairs_of(module: str, reference: Side, candidate: Side) -> list[Pair]:
    if module in reference.modules:
        return _same_name(module, reference.slots.get(module, ()), candidate.slots.get(module, ()))
    parts = [(slot, _source_in(slot, reference.modules)) for slot in candidate.slots.get(module, ())]
    found = [Pair(module, slot.name, Port(part), Port(module, slot)) for slot, part in parts if part]
    if found:
        return found
    for fused, slots in reference.slots.items():
        own = next((slot for slot in slots if module in slot.sources), None)
        if own is not None and fused in reference.modules:
            return [Pair(module, "", Port(fused, own), Port(module))]
    return []


def _same_name(module: str, reference: Sequence[Slot], candidate: Sequence[Slot]) -> list[Pair]:
    if not candidate or len(reference) != len(candidate):
        return [Pair(module, "", Port(module), Port(module))]
    return [
        Pair(module, left.name if left.sources else right.name, Port(module, left), Port(module, right))
        for left, right in zip(reference, candidate, strict=True)
    ]


def _source_in(slot: Slot, modules: Sequence[str]) -> str:
    return next((source for source in slot.sources if source in modules), "")


def _left_over(modules: Sequence[str], used: set[str], side: str) -> Iterable[Unpaired]:
    other = "candidate" if side == "reference" else "reference"
    return (Unpaired(name, side, f"the {other} has no such module") for name in modules if name not in used)


@dataclass(frozen=True)
class WeightPair:
    """Two weights that should be alike, by their names on disk."""

    reference: str
    candidate: str


def pair_weights(
    reference: Sequence[str],
    candidate: Sequence[str],
    reference_places: Mapping[str, frozenset[Place]],
    candidate_places: Mapping[str, frozenset[Place]],
) -> tuple[tuple[WeightPair, ...], tuple[Unpaired, ...]]:
    """Pairs in the candidate's order: by name, else by the same places in the model (module, shard id, expert).

    `*_places` say which places a module on disk filled. What filled no place on its side was not loaded there: it is
    left out where only one side has it.
    """
    by_places = {(_places(name, reference_places), _leaf(name)): name for name in reference}
    names, pairs = set(reference), []
    for name in candidate:
        places = _places(name, candidate_places)
        partner = name if name in names else by_places.get((places, _leaf(name))) if places else None
        if partner is not None:
            pairs.append(WeightPair(partner, name))
    used = ({one.reference for one in pairs}, {one.candidate for one in pairs})
    left = [Unpaired(n, "reference", "the candidate has no such weight") for n in reference if n not in used[0]]
    left += [Unpaired(n, "candidate", "the reference has no such weight") for n in candidate if n not in used[1]]
    known = reference_places.keys() | candidate_places.keys()
    return tuple(pairs), tuple(one for one in left if one.name.rpartition(".")[0] in known)


def _places(name: str, places: Mapping[str, frozenset[Place]]) -> frozenset[Place]:
    return places.get(name.rpartition(".")[0], frozenset())


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]
