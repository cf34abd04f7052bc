"""Fills a model from the weights iterator and keeps book of what was filled and what was not used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from backends.native.layers.parameter import default_weight_loader

EXPERT_NAME = re.compile(r"^(?P<experts>.*\.experts)\.(?P<expert_id>\d+)\.(?P<proj>\w+)\.(?P<suffix>\w+)$")
EXPERT_SHARDS = {"gate_proj": ("w13", "w1"), "up_proj": ("w13", "w3"), "down_proj": ("w2", "w2")}


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
    arguments: Mapping[str, int | str] = field(default_factory=dict)

    @property
    def shard(self) -> tuple[int | str, ...]:
        """The shard's ids; empty for the whole parameter."""
        return tuple(self.arguments.values())


@dataclass(frozen=True)
class NameMapping:
    """How an architecture's names on disk map to its fused parameters.

    `stacked` maps a projection on disk to (fused module, shard id); tensors under `ignored_prefixes` have no parameter.
    """

    stacked: Mapping[str, tuple[str, int | str]]
    ignored_prefixes: tuple[str, ...] = ()

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
        arguments: dict[str, int | str] = {"shard_id": shard_id, "expert_id": int(match["expert_id"])}
        return Target(f"{match['experts']}.{fused}_{match['suffix']}", arguments)

    def _stacked_target(self, name: str) -> Target | None:
        module, _, suffix = name.rpartition(".")
        parent, _, proj = module.rpartition(".")
        if proj not in self.stacked:
            return None
        fused, shard_id = self.stacked[proj]
        return Target(f"{parent}.{fused}.{suffix}", {"shard_id": shard_id})

    def expected_shards(self, name: str, parameter: Tensor) -> set[tuple[int | str, ...]]:
        """The shards that together fill a parameter; empty for one that is filled as a whole."""
        module, _, suffix = name.rpartition(".")
        stem = suffix.partition("_")[0]
        if module.endswith(".experts"):
            ids = [shard_id for fused, shard_id in EXPERT_SHARDS.values() if fused == stem]
            return {(shard_id, expert_id) for expert_id in range(parameter.shape[0]) for shard_id in ids}
        proj = module.rpartition(".")[2]
        return {(shard_id,) for fused, shard_id in self.stacked.values() if fused == proj}


def load_model_weights(model: nn.Module, weights: Iterable[tuple[str, Tensor]], mapping: NameMapping) -> LoadReport:
    """Hand every tensor to its parameter's `weight_loader`; raises what a loader raises."""
    parameters = dict(model.named_parameters())
    came: dict[str, set[tuple[int | str, ...]]] = {}
    never_used, ignored = [], []
    for name, loaded_weight in weights:
        if name.startswith(mapping.ignored_prefixes):
            ignored.append(name)
            continue
        target = mapping.target(name, parameters)
        if target is None:
            never_used.append(name)
            continue
        param = parameters[target.parameter]
        weight_loader = getattr(param, "weight_loader", default_weight_loader)
        weight_loader(param, loaded_weight, **target.arguments)
        came.setdefault(target.parameter, set()).add(target.shard)
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
    name: str, param: Tensor, came: Mapping[str, set[tuple[int | str, ...]]], mapping: NameMapping
) -> Sequence[tuple[int | str, ...]]:
    found = came.get(name, set())
    if () in found:
        return ()
    missing = (mapping.expected_shards(name, param) or {()}) - found
    return sorted(missing, key=str)


def _described(name: str, shards: Sequence[tuple[int | str, ...]]) -> str:
    listed = ", ".join(" of expert ".join(map(str, shard)) for shard in shards[:4] if shard)
    more = f" and {len(shards) - 4} more" if len(shards) > 4 else ""
    return f"{name} (missing {listed}{more})" if listed else name
