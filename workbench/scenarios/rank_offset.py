"""Ranks take the part of the next one, the last its own: one part is loaded twice and one by nobody, nothing fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from workbench.scenario import Scenario
from workbench.scenarios._faulty import give
from workbench.scenarios._ledger import LAYER, scenario

if TYPE_CHECKING:
    from backends.native.layers.linear import FusedColumnLinear

UP = 1


def plant() -> None:
    """As engines had it: ranks counted from one, cut to the last part so that it does not fail."""
    from backends.native.layers.linear import MergedColumnParallelLinear

    give(MergedColumnParallelLinear, "source_rank", _offset)


def _offset(repaired: Callable[..., int]) -> Callable[..., int]:
    def source_rank(self: FusedColumnLinear, position: int) -> int:
        rank = repaired(self, position)
        is_faulty = position == UP and self.prefix == f"{LAYER}.mlp.gate_up_proj"
        return min(rank + 1, self.tp_size - 1) if is_faulty else rank

    return source_rank


SCENARIO: Scenario = scenario(
    "each rank takes the next rank's part of up_proj of one layer, the last one its own; silent",
    plant,
    "shard/rank-offset",
)
