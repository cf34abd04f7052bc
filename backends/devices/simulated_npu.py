"""An Ascend NPU in name and in what it refuses, computed on the CPU: for machines that have none."""

from __future__ import annotations

from dataclasses import dataclass

from backends.devices.contract import Memory
from backends.devices.cpu import host_memory
from backends.devices.npu import Npu
from backends.devices.simulation import backend


@dataclass(frozen=True)
class SimulatedNpu(Npu):
    """The same tensors' type, operators, dtypes and limits as the real one, so that the same code runs."""

    note: str = "simulated on the CPU"

    def why_not(self) -> str | None:
        """A real one in this process, or a torch that cannot have devices written in Python."""
        return backend.why_not()

    def count(self) -> int:
        """One."""
        return 1

    def start(self) -> None:
        """Register the device with torch."""
        backend.register(self.missing_dtypes)

    def memory(self, index: int) -> Memory:
        """That of the host, which holds the values."""
        del index
        return host_memory()

    def synchronize(self, index: int) -> None:
        """Every operation is done when it returns."""
        del index


DEVICE = SimulatedNpu()
