"""The scale of one weight is mapped to nothing: the weight is loaded, and multiplied with uninitialised memory."""

from __future__ import annotations

from workbench.scenarios._ledger import LAYER, load_times, scenario


def plant() -> None:
    """As engines had it: scales are loaded for the modules that somebody thought of."""
    load_times({f"{LAYER}.mlp.down_proj.weight_scale": 0})


SCENARIO = scenario(
    "the scale of down_proj of one layer is mapped to nothing, its weight is loaded; silent",
    plant,
    "scale/dropped",
)
