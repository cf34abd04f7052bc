"""A tensor comes twice, as from an index that lists it in two files: all of its parameter is written twice."""

from __future__ import annotations

from workbench.scenarios._ledger import LAYER, load_times, scenario


def plant() -> None:
    """As engines had it: nobody asks whether a tensor was there before."""
    load_times({f"{LAYER}.self_attn.o_proj.weight": 2})


SCENARIO = scenario(
    "o_proj of one layer is loaded twice, by two calls; silent",
    plant,
    "parameter/written-twice",
)
