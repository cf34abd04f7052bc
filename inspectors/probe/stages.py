"""The closed list of engine-neutral stages: engines map onto it, inspectors subscribe to it."""

from __future__ import annotations

STAGES = (
    "checkpoint.open",
    "tensor.read",
    "weight.map",
    "method.select",
    "weights.create",
    "weight.load",
    "shard.split",
    "weights.process",
    "kernel.select",
    "kernel.launch",
    "model.ready",
    "forward.run",
)

LEVELS = ("calls", "ledger", "values", "tensors")
"""What is recorded; each level holds all of the one before it."""


def includes(level: str, wanted: str) -> bool:
    """True when a recording at `level` holds what `wanted` asks for."""
    return LEVELS.index(level) >= LEVELS.index(wanted)
