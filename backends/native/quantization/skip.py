"""Decides whether a checkpoint's ignore list leaves a layer in the model's dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from backends.native.errors import SkipDecisionError

# Only names that every architecture fuses in the same way: a name whose parts differ between architectures would be
# expanded into parts that a checkpoint does not have, and its own entry in the ignore list would never match.
DEFAULT_FUSED_FALLBACK: Mapping[str, Sequence[str]] = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}


def names_module(entry: str, name: str) -> bool:
    """Whether the ignore entry names the module `name` or one around it, compared from dot to dot.

    `mlp.gate` names `model.layers.0.mlp.gate` and everything inside it, and not `model.layers.0.mlp.gate_up_proj`.
    """
    return f".{entry}." in f".{name}."


def expanded(
    prefix: str,
    proj_name: str,
    packed_modules_mapping: Mapping[str, Sequence[str]],
    fallback: Mapping[str, Sequence[str]],
) -> tuple[str, list[str]]:
    """Who expands the fused name ("model", "fallback" or "none"), and the full names on disk it stands for."""
    if proj_name in packed_modules_mapping:
        source, shard_names = "model", packed_modules_mapping[proj_name]
    elif proj_name in fallback:
        source, shard_names = "fallback", fallback[proj_name]
    else:
        source, shard_names = "none", (proj_name,)
    parent = prefix.removesuffix(proj_name)
    return source, [f"{parent}{shard_name}" for shard_name in shard_names]


def is_layer_skipped(
    prefix: str,
    ignored_layers: Iterable[str],
    packed_modules_mapping: Mapping[str, Sequence[str]],
    fallback: Mapping[str, Sequence[str]] = DEFAULT_FUSED_FALLBACK,
    entry_names: Callable[[str, str], bool] = names_module,
) -> bool:
    """Whether the layer called `prefix` stays in the model's dtype.

    A fused name is expanded into the names on disk by the model's mapping, else by `fallback`, and then only those are
    compared with the list, each entry by `entry_names(entry, name)`. Raises SkipDecisionError when the list names some
    of them and not the others.
    """
    ignored = tuple(ignored_layers)
    proj_name = prefix.rpartition(".")[2]
    expansion_source, names_tried = expanded(prefix, proj_name, packed_modules_mapping, fallback)
    names_skipped = [name for name in names_tried if any(entry_names(entry, name) for entry in ignored)]
    if names_skipped and len(names_skipped) < len(names_tried):
        kept = sorted(set(names_tried) - set(names_skipped))
        raise SkipDecisionError(
            f"{prefix} is one fused layer (expanded by: {expansion_source}), but the ignore list names "
            f"{', '.join(names_skipped)} and not {', '.join(kept)}.",
            "put all of its shards into the ignore list, or none",
        )
    return bool(names_skipped)
