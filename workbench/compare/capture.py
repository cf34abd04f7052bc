"""One side of a comparison as its session tells it: kept tensors of modules, their slots, and what filled them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from inspectors.probe.events import LoaderCalled, WeightsCreated, WeightWritten
from sessions.ledger import names_in
from sessions.loaded import tp_of
from sessions.session import Session
from sessions.tensors import KeptTensor, kept_tensors

_LAYER = re.compile(r"(?:^|\.)(?:layers|blocks|h|blk)\.(\d+)(?:\.|$)")
NO_LAYER = -1
_QKV = ("'q'", "'k'", "'v'")


@dataclass(frozen=True)
class Slot:
    """One projection of a module. `size` is that of a rank, `sources` the modules on disk it was filled from."""

    number: int
    size: int
    sources: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As checkpoints call it (`k_proj`), or its number."""
        leaves = sorted({source.rpartition(".")[2] for source in self.sources})
        return leaves[0] if len(leaves) == 1 else str(self.number)


@dataclass(frozen=True)
class Side:
    """What one run computed: kept tensors by (module, role, index), one a rank, and the model around them."""

    session: Session
    tensors: Mapping[tuple[str, str, int], tuple[KeptTensor, ...]] = field(repr=False)

    @classmethod
    def of(cls, session: Session) -> Side:
        """Read what the session kept of its first forward pass."""
        found: dict[tuple[str, str, int], dict[int, KeptTensor]] = defaultdict(dict)
        for one in kept_tensors(session):
            # a module that is called again in the same pass is compared by its first call
            found[one.module, one.role, one.index].setdefault(one.rank, one)
        return cls(session, {key: tuple(by_rank[rank] for rank in sorted(by_rank)) for key, by_rank in found.items()})

    @property
    def ranks(self) -> int:
        """Tensor parallel size."""
        return tp_of(self.session)

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """Modules with an output as they finished; the model itself where no module gave its result."""
        found = dict.fromkeys(module for module, role, _ in self.tensors if role == "output")
        results = self.tensors.get(("", "output", 0), ())
        inner = {
            one.name for (module, role, _), kept in self.tensors.items() if module and role == "output" for one in kept
        }
        return tuple(module for module in found if module or not all(one.name in inner for one in results))

    @cached_property
    def slots(self) -> Mapping[str, tuple[Slot, ...]]:
        """Slots of each fused module; one that takes a packed tensor in one slice has none.

        They are told by the shard ids of its loader calls; where these have none, by the pieces its weight was written
        in, as of a convolution over three groups of channels.
        """
        found: dict[str, tuple[Slot, ...]] = {}
        for module in self.modules:
            sizes = self._created.get(module, ())
            numbered = [self._slot_sources.get((module, number), set()) for number in range(len(sizes))]
            if not any(numbered):
                sizes = self._pieces.get(f"{module}.weight", ())
                numbered = [set() for _ in sizes]
            shape = self.tensors[module, "output", 0][0].shape if (module, "output", 0) in self.tensors else ()
            if len(sizes) > 1 and sum(sizes) == (shape[-1] if shape else 0):
                told = zip(sizes, numbered, strict=True)
                found[module] = tuple(Slot(n, size, tuple(sorted(own))) for n, (size, own) in enumerate(told))
        return found

    @cached_property
    def _created(self) -> Mapping[str, tuple[int, ...]]:
        sizes: dict[str, tuple[int, ...]] = {}
        for event in self.session.of_kinds("weights.created"):
            if isinstance(event.body, WeightsCreated):
                sizes.setdefault(event.body.module, event.body.output_partition_sizes)
        return sizes

    @cached_property
    def _pieces(self) -> Mapping[str, tuple[int, ...]]:
        """Rows of each parameter of the first rank that were written together, where they follow each other."""
        found: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for event in self.session.of_kinds("weight.written"):
            body = event.body
            if (
                isinstance(body, WeightWritten)
                and event.rank <= 0
                and body.start
                and len(body.start) == len(body.length)
            ):
                found[body.parameter].append((body.start[0], body.length[0]))
        return {name: tuple(length for _, length in pieces) for name, pieces in found.items() if _follow(pieces)}

    @cached_property
    def _slot_sources(self) -> Mapping[tuple[str, int], set[str]]:
        """Modules on disk by (module, number of the slot), from the shard ids of the loader calls."""
        found: dict[tuple[str, int], set[str]] = defaultdict(set)
        for body in self._calls:
            if body.expert_id < 0:
                for number in slot_numbers(body.shard_id):
                    found[_owner(body.parameter), number].update(map(_owner, names_in(body.checkpoint_name)))
        return found

    @cached_property
    def sources(self) -> Mapping[str, tuple[str, ...]]:
        """Modules on disk that filled each module, in the order of the load."""
        found: dict[str, dict[str, None]] = defaultdict(dict)
        for body in self._calls:
            found[_owner(body.parameter)].update(dict.fromkeys(map(_owner, names_in(body.checkpoint_name))))
        return {module: tuple(names) for module, names in found.items()}

    @cached_property
    def places(self) -> Mapping[str, frozenset[tuple[str, str, int]]]:
        """For each module on disk the (module, shard_id, expert_id) it fills: what pairs it where names differ."""
        found: dict[str, set[tuple[str, str, int]]] = defaultdict(set)
        for body in self._calls:
            for name in names_in(body.checkpoint_name):
                found[_owner(name)].add((_owner(body.parameter), body.shard_id, body.expert_id))
        return {name: frozenset(places) for name, places in found.items()}

    @cached_property
    def _calls(self) -> tuple[LoaderCalled, ...]:
        bodies = (event.body for event in self.session.of_kinds("loader.called"))
        return tuple(dict.fromkeys(body for body in bodies if isinstance(body, LoaderCalled)))


def _follow(pieces: list[tuple[int, int]]) -> bool:
    at = 0
    for start, length in pieces:
        if start != at:
            return False
        at += length
    return True


def slot_numbers(shard_id: str) -> tuple[int, ...]:
    """The slots that a recorded shard id means: `'k'` is 1, `2` is 2, `(0, 1)` is both; () for none or another one."""
    if shard_id in _QKV:
        return (_QKV.index(shard_id),)
    words = shard_id.strip("()").replace(" ", "").strip(",").split(",")
    return tuple(int(word) for word in words) if all(word.isdigit() for word in words) else ()


def layer_of(name: str) -> int:
    """The number of the layer that a module or tensor belongs to, NO_LAYER outside the layers."""
    match = _LAYER.search(name)
    return int(match[1]) if match else NO_LAYER


def kind_of(name: str) -> str:
    """A module's name without its layer, the same for all layers: `self_attn.qkv_proj`; "layer" for a layer itself."""
    match = _LAYER.search(name)
    return (name[match.end() :] or "layer") if match else name


def _owner(name: str) -> str:
    return name.rpartition(".")[0]
