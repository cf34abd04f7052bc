"""What every device answers, whatever it is; nothing outside a device's own file asks for its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from backends.devices.limits import LaunchLimits


@dataclass(frozen=True)
class Memory:
    """Of one device, in bytes; `peak_bytes` is the most this process has held so far, None where nobody counts."""

    free_bytes: int
    total_bytes: int
    peak_bytes: int | None = None

    def __str__(self) -> str:
        known = {"free": self.free_bytes, "total": self.total_bytes, "peak": self.peak_bytes}
        return ", ".join(f"{name} {size / 2**30:.2f} GiB" for name, size in known.items() if size is not None)


class Device(Protocol):
    """One kind of device; `index` counts those of a kind. Each answers before anything of it was started."""

    @property
    def torch_type(self) -> str:
        """The type of its `torch.device`."""

    @property
    def note(self) -> str:
        """What must be said wherever a result of it is shown, such as that it is simulated; empty for most."""

    @property
    def has_values(self) -> bool:
        """Whether its tensors hold anything; one without runs shapes only."""

    @property
    def keeps_quantized_blocks(self) -> bool:
        """Whether kernels read weights in blocks of GGUF; otherwise they are dequantized once, after the load."""

    @property
    def kernel_kinds(self) -> tuple[str, ...]:
        """Kinds of kernels in the order it prefers them; the torch reference comes last by itself."""

    @property
    def limits(self) -> LaunchLimits:
        """What it allows a kernel launch."""

    @property
    def missing_dtypes(self) -> frozenset[torch.dtype]:
        """The dtypes in which it can hold no tensor."""

    @property
    def integer_input_dtypes(self) -> frozenset[torch.dtype] | None:
        """The dtypes of inputs that its kernels quantize to integers; None where any float will do."""

    @property
    def triton_backends(self) -> tuple[str, ...]:
        """The parts of triton that compile for it; the interpreter needs none."""

    def multiplies_float8(self, index: int) -> bool:
        """Whether its matrix units take e4m3 as it is."""

    def why_not(self) -> str | None:
        """Why it cannot be used here, in words, or None if it can. Imports its library where it has one."""

    def count(self) -> int:
        """How many there are; 0 where `why_not` has a reason."""

    def start(self) -> None:
        """Make its `torch.device` usable; called once before the first tensor, harmless when repeated."""

    def memory(self, index: int) -> Memory:
        """Its memory now."""

    def synchronize(self, index: int) -> None:
        """Return when all work handed to it is done; what is timed is synchronized first and last."""
