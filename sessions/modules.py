"""Which tensors of a checkpoint belong to a module of the model: by use, by name, by the parts of a fused name."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from inspectors.probe.events import TensorListed
from sessions.dtypes import is_plain, spelled

FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "in_proj_qkvz": ("in_proj_qkv", "in_proj_z"),
    "in_proj_ba": ("in_proj_b", "in_proj_a"),
}
"""Fused modules of the field and the parts that checkpoints store; a checkpoint may also store them whole."""

WEIGHTS = ("weight", "qweight", "weight_packed")
_COMPANION_WORDS = ("scale", "zero", "offset", "g_idx", "weight_shape", "deq", "quant_bias")


@dataclass(frozen=True)
class HeaderTensor:
    """One weight on disk with what is stored beside it: the last parts of its companions' names, e.g. a scale."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    companions: tuple[str, ...]

    @property
    def is_quantized(self) -> bool:
        """True when it is stored in a quantized type, or with companions."""
        return bool(self.companions) or not is_plain(self.dtype)


class Names:
    """The tensors of a header by the module that owns them on disk."""

    def __init__(self, listed: Mapping[str, TensorListed], used: Mapping[str, set[str]]) -> None:
        self._listed, self._used = listed, used
        self._leaves: dict[str, list[str]] = defaultdict(list)
        self._inside: dict[str, list[str]] = defaultdict(list)
        for name in listed:
            owner, _, leaf = name.rpartition(".")
            self._leaves[owner].append(leaf)
        for owner in self._leaves:
            at = owner
            while at:
                self._inside[at].append(owner)
                at = at.rpartition(".")[0]

    def owners(self, module: str, tried: tuple[str, ...]) -> list[str]:
        """The modules on disk that make up `module`, in the order of the file."""
        if self._inside.get(module):
            return self._inside[module]
        prefix, _, leaf = module.rpartition(".")
        parts = [*tried, *(f"{prefix}.{part}" if prefix else part for part in FUSED.get(leaf, ()))]
        found = [owner for part in dict.fromkeys(parts) for owner in self._inside.get(part, ())]
        used = {name.rpartition(".")[0] for name in self._used.get(module, ())}
        found = found or [owner for owner in self._leaves if owner in used]
        return found or self._inside.get(self._renamed(module), [])

    def _renamed(self, module: str) -> str:
        """A module's name with the prefix that the checkpoint has where the model has its own, "" where they agree."""
        for of_model, on_disk in self._prefixes:
            if f"{module}.".startswith(of_model):
                return f"{on_disk}{module.removeprefix(of_model)}"
        return ""

    @cached_property
    def _prefixes(self) -> list[tuple[str, str]]:
        """Prefixes of the model and those of the checkpoint in their place, as modules that were loaded have them."""
        found: Counter[tuple[str, str]] = Counter()
        for module, names in self._used.items():
            for owner in {name.rpartition(".")[0] for name in names}:
                ours, theirs = module.split("."), owner.split(".")
                while ours and theirs and ours[-1] == theirs[-1]:
                    ours, theirs = ours[:-1], theirs[:-1]
                if module != owner and len(".".join(ours)) < len(module):
                    found[".".join([*ours, ""]), ".".join([*theirs, ""])] += 1
        return [pair for pair, _ in found.most_common() if pair[0]]

    def of_module(self, module: str, tried: tuple[str, ...] = ()) -> tuple[HeaderTensor, ...]:
        """The weights on disk of a module of the model, each with its companions."""
        return tuple(tensor for owner in self.owners(module, tried) for tensor in self.of_owner(owner))

    def of_owner(self, owner: str) -> list[HeaderTensor]:
        """The weights of one module on disk."""
        leaves = self._leaves.get(owner, [])
        companions = tuple(leaf for leaf in leaves if leaf not in WEIGHTS and is_companion(leaf))
        out = []
        for leaf in leaves:
            if leaf in WEIGHTS:
                one = self._listed[f"{owner}.{leaf}" if owner else leaf]
                out.append(HeaderTensor(one.checkpoint_name, spelled(one.dtype), one.shape, companions))
        return out

    def stored_dtype(self) -> str:
        """The most frequent quantized type of the checkpoint's weights, "" when none is quantized."""
        dtypes = Counter(t.dtype for owner in self._leaves for t in self.of_owner(owner) if not is_plain(t.dtype))
        return dtypes.most_common(1)[0][0] if dtypes else ""


def is_companion(leaf: str) -> bool:
    """True for the last part of a name that holds a scale, zero point, offset or the like of a weight."""
    return any(word in leaf for word in _COMPANION_WORDS)
