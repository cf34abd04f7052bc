"""Fills a model from the weights iterator and keeps book of what was filled and what was not used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from backends.native.errors import ShapeError
from backends.native.layers.parameter import default_weight_loader

EXPERT_NAME = re.compile(r"^(?P<experts>.*\.experts)\.(?P<expert_id>\d+)\.(?P<proj>\w+)\.(?P<suffix>\w+)$")
FUSED_EXPERTS_NAME = re.compile(r"^(?P<experts>.*\.experts)\.(?P<proj>gate_up_proj|down_proj)(?P<suffix>_\w+)?$")
EXPERT_SHARDS = {"gate_proj": ("w13", "w1"), "up_proj": ("w13", "w3"), "down_proj": ("w2", "w2")}

ShardId = int | str | tuple[int, ...]


@dataclass(frozen=True)
class LoadReport:
    """What one rank's load did: `never_filled` are parameters, `never_used` and `ignored` are names on disk.

    `missing_shards` says which shards of a never (or only partly) filled fused parameter did not come.
    """

    parameters: int
    filled: int
    never_filled: tuple[str, ...]
    missing_shards: tuple[str, ...]
    never_used: tuple[str, ...]
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """Where a tensor on disk goes: a parameter, and the shard of it."""

    parameter: str
    arguments: Mapping[str, ShardId] = field(default_factory=dict)

    @property
    def shard(self) -> tuple[ShardId, ...]:
        """The shard's ids; empty for the whole parameter."""
        return tuple(self.arguments.values())


@dataclass(frozen=True)
class NameMapping:
    """How an architecture's names on disk map to its fused parameters.

    `stacked` maps a projection on disk to (fused module, shard id), where a tuple of ids is a tensor that holds several
    projections one after the other. Tensors under `ignored_prefixes` or with `ignored_suffixes` have no parameter.
    """

    stacked: Mapping[str, tuple[str, ShardId]]
    ignored_prefixes: tuple[str, ...] = ()
    ignored_suffixes: tuple[str, ...] = ()

    def ignores(self, name: str) -> bool:
        """Whether the architecture has no use for the tensor called `name`."""
        return name.startswith(self.ignored_prefixes) or name.endswith(self.ignored_suffixes)

    def placements(
        self, name: str, loaded_weight: Tensor, parameters: Mapping[str, Tensor]
    ) -> Iterator[tuple[Target, Tensor]]:
        """Where the tensor called `name` goes, in parts if it holds all experts; nothing if no parameter wants it."""
        target = self.target(name, parameters)
        fused = FUSED_EXPERTS_NAME.match(name)
        if target is not None:
            yield target, loaded_weight
        elif fused is not None:
            yield from _expert_placements(fused, loaded_weight, parameters)

    def target(self, name: str, parameters: Mapping[str, Tensor]) -> Target | None:
        """The parameter that the tensor called `name` fills, or None."""
        target = self._expert_target(name) or self._stacked_target(name) or Target(name)
        if target.parameter not in parameters:
            target = Target(name)
        return target if target.parameter in parameters else None

    def _expert_target(self, name: str) -> Target | None:
        match = EXPERT_NAME.match(name)
        if match is None or match["proj"] not in EXPERT_SHARDS:
            return None
        fused, shard_id = EXPERT_SHARDS[match["proj"]]
        arguments: dict[str, ShardId] = {"shard_id": shard_id, "expert_id": int(match["expert_id"])}
        return Target(f"{match['experts']}.{fused}_{match['suffix']}", arguments)

    def _stacked_target(self, name: str) -> Target | None:
        module, _, suffix = name.rpartition(".")
        parent, _, proj = module.rpartition(".")
        if proj not in self.stacked:
            return None
        fused, shard_id = self.stacked[proj]
        return Target(f"{parent}.{fused}.{suffix}", {"shard_id": shard_id})

    def expected_shards(self, name: str, parameter: Tensor) -> set[tuple[ShardId, ...]]:
        """The shards that together fill a parameter; empty for one that is filled as a whole."""
        module, _, suffix = name.rpartition(".")
        stem = suffix.partition("_")[0]
        if module.endswith(".experts"):
            ids = [shard_id for fused, shard_id in EXPERT_SHARDS.values() if fused == stem]
            # A parameter that gets its memory late has no shape before, but says how many experts it is for.
            experts = getattr(parameter, "stack_size", 0) or parameter.shape[0]
            return {(shard_id, expert_id) for expert_id in range(experts) for shard_id in ids}
        proj = module.rpartition(".")[2]
        return {(shard_id,) for fused, shard_id in self.stacked.values() if fused == proj}


def _expert_placements(
    name: re.Match[str], loaded_weight: Tensor, parameters: Mapping[str, Tensor]
) -> Iterator[tuple[Target, Tensor]]:
    """Each expert's part of a tensor [experts, ...], whose gate rows stand before its up rows."""
    stem, shard_ids = ("w2_weight", ("w2",)) if name["proj"] == "down_proj" else ("w13_weight", ("w1", "w3"))
    parameter = f"{name['experts']}.{stem}{name['suffix'] or ''}"
    if parameter not in parameters:
        return
    if loaded_weight.dim() < 2 or loaded_weight.shape[1] % len(shard_ids):
        raise ShapeError(
            f"{name[0]} is {list(loaded_weight.shape)}, expected [experts, {len(shard_ids)} equal parts, ...].",
            "compare the tensor's shape on disk with config.json",
        )
    for expert_id, of_expert in enumerate(loaded_weight):
        for shard_id, part in zip(shard_ids, of_expert.chunk(len(shard_ids)), strict=True):
            yield Target(parameter, {"shard_id": shard_id, "expert_id": expert_id}), part


def load_model_weights(model: nn.Module, weights: Iterable[tuple[str, Tensor]], mapping: NameMapping) -> LoadReport:
    """Hand every tensor to its parameter's `weight_loader`; raises what a loader raises."""
    parameters = dict(model.named_parameters())
    came: dict[str, set[tuple[ShardId, ...]]] = {}
    never_used, ignored = [], []
    for name, loaded_weight in weights:
        if mapping.ignores(name):
            ignored.append(name)
            continue
        is_used = False
        for target, part in mapping.placements(name, loaded_weight, parameters):
            param = parameters[target.parameter]
            weight_loader = getattr(param, "weight_loader", default_weight_loader)
            weight_loader(param, part, **target.arguments)
            came.setdefault(target.parameter, set()).add(target.shard)
            is_used = True
        if not is_used:
            never_used.append(name)
    missing = {name: _missing_shards(name, param, came, mapping) for name, param in parameters.items()}
    never_filled = tuple(name for name, shards in missing.items() if shards)
    return LoadReport(
        parameters=len(parameters),
        filled=len(parameters) - len(never_filled),
        never_filled=never_filled,
        missing_shards=tuple(_described(name, missing[name]) for name in never_filled),
        never_used=tuple(never_used),
        ignored=tuple(ignored),
    )


def _missing_shards(
    name: str, param: Tensor, came: Mapping[str, set[tuple[ShardId, ...]]], mapping: NameMapping
) -> Sequence[tuple[ShardId, ...]]:
    found = came.get(name, set())
    if () in found:
        return ()
    missing = (mapping.expected_shards(name, param) or {()}) - found
    return sorted(missing, key=str)


def _described(name: str, shards: Sequence[tuple[ShardId, ...]]) -> str:
    listed = ", ".join(" of expert ".join(map(str, shard)) for shard in shards[:4] if shard)
    more = f" and {len(shards) - 4} more" if len(shards) > 4 else ""
    return f"{name} (missing {listed}{more})" if listed else name
