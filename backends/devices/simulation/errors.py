"""The error of the simulation: what a real NPU would not do either."""

from __future__ import annotations


class SimulatedNpuError(RuntimeError):
    """A call that an NPU refuses; a RuntimeError, as torch_npu's are, that says it was only simulated."""

    def __init__(self, what: str) -> None:
        super().__init__(f"simulated NPU: {what}")


def require(holds: bool, what: str) -> None:
    """Raise SimulatedNpuError saying `what` unless it holds."""
    if not holds:
        raise SimulatedNpuError(what)
