"""A projection is missing from the name mapping of one layer: the keys of its fused attention stay uninitialised."""

from __future__ import annotations

from workbench.scenarios._ledger import LAYER, load_times, scenario


def plant() -> None:
    """As engines had it: a name that the mapping does not know is passed over in silence."""
    load_times({f"{LAYER}.self_attn.k_proj.": 0})


SCENARIO = scenario(
    "k_proj of one layer is mapped to nothing: its slot of qkv_proj is never written; silent",
    plant,
    "checkpoint/never-used",
)
