"""One half comes twice and the other never: as many loader calls as there should be, and half of it uninitialised."""

from __future__ import annotations

from workbench.scenarios._ledger import LAYER, load_times, scenario


def plant() -> None:
    """As engines had it: counts agree, eight of eight, with the left half loaded twice and the right one empty."""
    load_times({f"{LAYER}.mlp.gate_proj.": 2, f"{LAYER}.mlp.up_proj.": 0})


SCENARIO = scenario(
    "gate_proj of one layer is loaded twice and up_proj never: the calls count right; silent",
    plant,
    "checkpoint/never-used",
)
