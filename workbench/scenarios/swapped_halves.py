"""Gate and up projection of one layer lie in each other's half of the fused parameter: all is filled, all is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from workbench.scenario import Scenario
from workbench.scenarios._faulty import give
from workbench.scenarios._ledger import LAYER, scenario

if TYPE_CHECKING:
    from backends.native.layers.linear import FusedColumnLinear


def plant() -> None:
    """As engines had it: a kernel that wants up before gate, and a loader that swaps them for every kernel."""
    from backends.native.layers.linear import MergedColumnParallelLinear

    give(MergedColumnParallelLinear, "position", _swapping)


def _swapping(repaired: Callable[..., int]) -> Callable[..., int]:
    def position(self: FusedColumnLinear, shard_id: int | str) -> int:
        found = repaired(self, shard_id)
        return len(self.output_sizes) - 1 - found if self.prefix == f"{LAYER}.mlp.gate_up_proj" else found

    return position


SCENARIO: Scenario = scenario(
    "gate and up of one layer are loaded into each other's half of gate_up_proj; silent",
    plant,
    "shard/misplaced",
)
