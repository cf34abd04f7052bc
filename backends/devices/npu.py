"""Ascend NPUs, through torch_npu, which registers itself as a device of torch when it is imported."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

import torch

from backends.devices.contract import Memory
from backends.devices.limits import LIMITS, LaunchLimits

LIBRARY = "torch_npu"
FLOAT8 = frozenset({torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz})
NO_FLOAT8 = FLOAT8 | frozenset(
    getattr(torch, name) for name in ("float8_e8m0fnu", "float4_e2m1fn_x2") if hasattr(torch, name)
)
"""Ascend 910B and older compute in float32, float16, bfloat16 and integers."""


def is_simulated() -> bool:
    """Whether this process has a simulation under the device's name."""
    return getattr(getattr(torch, "npu", None), "is_simulated", False)


@dataclass(frozen=True)
class Npu:
    """Nothing of torch_npu is imported before the device is asked for: its import may fail or start a driver."""

    torch_type: str = "npu"
    note: str = ""
    has_values: bool = True
    keeps_quantized_blocks: bool = False
    kernel_kinds: tuple[str, ...] = ("npu",)
    limits: LaunchLimits = LIMITS["ascend"]
    missing_dtypes: frozenset[torch.dtype] = NO_FLOAT8
    integer_input_dtypes: frozenset[torch.dtype] | None = frozenset({torch.float16, torch.bfloat16})
    triton_backends: tuple[str, ...] = ("ascend",)

    def multiplies_float8(self, index: int) -> bool:
        """It has no such units."""
        del index
        return False

    def why_not(self) -> str | None:
        """The library is not installed, cannot be imported without its toolkit CANN, or finds no NPU."""
        if is_simulated():
            return "a simulated one has its name in this process"
        if importlib.util.find_spec(LIBRARY) is None:
            return f"{LIBRARY} is not installed"
        try:
            importlib.import_module(LIBRARY)
        except (ImportError, OSError, RuntimeError) as error:
            return f"{LIBRARY} cannot be imported ({str(error).splitlines()[0]}); it needs Ascend's toolkit CANN"
        return None if self._module().is_available() else f"{LIBRARY} finds no NPU"

    def count(self) -> int:
        """NPUs that torch_npu sees."""
        return 0 if self.why_not() else int(self._module().device_count())

    def start(self) -> None:
        """Import the library, which registers the device."""
        importlib.import_module(LIBRARY)

    def memory(self, index: int) -> Memory:
        """Free and total as the driver says, the peak as the library's allocator says."""
        free, total = self._module().mem_get_info(index)
        return Memory(free, total, self._module().max_memory_allocated(index))

    def synchronize(self, index: int) -> None:
        """Wait for the NPU's streams."""
        self._module().synchronize(index)

    def _module(self) -> Any:
        return getattr(torch, self.torch_type)


DEVICE = Npu()
