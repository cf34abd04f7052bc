"""The CPU: every dtype and every kernel's reference; the device that is always there."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from backends.devices.contract import Memory
from backends.devices.limits import UNLIMITED, LaunchLimits


def host_memory() -> Memory:
    """The machine's memory, and the most of it this process has held."""
    page = os.sysconf("SC_PAGE_SIZE")
    free, total = (os.sysconf(name) * page for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"))
    try:
        import resource  # POSIX has it, Windows does not
    except ImportError:
        return Memory(free, total)
    return Memory(free, total, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)


@dataclass(frozen=True)
class Cpu:
    """Nothing is queued, so there is nothing to wait for."""

    torch_type: str = "cpu"
    note: str = ""
    has_values: bool = True
    keeps_quantized_blocks: bool = True
    kernel_kinds: tuple[str, ...] = ("compiled",)
    limits: LaunchLimits = UNLIMITED
    missing_dtypes: frozenset[torch.dtype] = frozenset()
    integer_input_dtypes: frozenset[torch.dtype] | None = None
    triton_backends: tuple[str, ...] = ()

    def multiplies_float8(self, index: int) -> bool:
        """It has no such units."""
        del index
        return False

    def why_not(self) -> str | None:
        """It can always be used."""
        return None

    def count(self) -> int:
        """All cores are one."""
        return 1

    def start(self) -> None:
        """Nothing to start."""

    def memory(self, index: int) -> Memory:
        """That of the machine."""
        del index
        return host_memory()

    def synchronize(self, index: int) -> None:
        """Every operation is done when it returns."""
        del index


DEVICE = Cpu()
