"""A fallback table of fused names hides a module from the ignore list: it is built as FP8 and cannot be cut."""

from __future__ import annotations

import json

from workbench.scenario import Scenario
from workbench.scenarios._tiny import ARCHITECTURE, CHECKPOINT, fp8_block_overrides

PLANTED_FALLBACK = {
    "qkv_proj": ["q_proj", "k_proj", "v_proj"],
    "gate_up_proj": ["gate_proj", "up_proj"],
    "in_proj_qkvz": ["in_proj_qkv", "in_proj_z"],
    "in_proj_ba": ["in_proj_b", "in_proj_a"],
}
"""The last two are right for an architecture that stores the parts apart; this checkpoint holds them whole."""

SCENARIO = Scenario(
    description="the ignore list names in_proj_ba, a wrong fused-name table hides it, and the load fails on block size",
    checkpoint=CHECKPOINT,
    architecture=ARCHITECTURE,
    overrides=fp8_block_overrides(),
    extra=("--fused-fallback", json.dumps(PLANTED_FALLBACK)),
    expects="skip-decision/fused-name",
)
