"""A load in which nothing is wrong."""

from __future__ import annotations

from workbench.scenario import Scenario
from workbench.scenarios._tiny import ARCHITECTURE, CHECKPOINT, fp8_block_overrides

SCENARIO = Scenario(
    description="an FP8 block checkpoint at tensor parallel size 4, loaded as it should be",
    checkpoint=CHECKPOINT,
    architecture=ARCHITECTURE,
    overrides=fp8_block_overrides(),
    is_default=True,
)
