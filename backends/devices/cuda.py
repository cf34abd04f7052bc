"""GPUs of NVIDIA, through torch: the only file that speaks to `torch.cuda`."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from backends.devices.contract import Memory
from backends.devices.limits import LIMITS, LaunchLimits

NATIVE_FLOAT8 = (8, 9)


@dataclass(frozen=True)
class Cuda:
    """Kernels are queued; timing must wait for them."""

    torch_type: str = "cuda"
    note: str = ""
    has_values: bool = True
    keeps_quantized_blocks: bool = True
    kernel_kinds: tuple[str, ...] = ("triton",)
    limits: LaunchLimits = LIMITS["nvidia"]
    missing_dtypes: frozenset[torch.dtype] = frozenset()
    integer_input_dtypes: frozenset[torch.dtype] | None = None
    triton_backends: tuple[str, ...] = ("nvidia", "amd")

    def multiplies_float8(self, index: int) -> bool:
        """Not before the compute capability 8.9."""
        return torch.cuda.get_device_capability(index) >= NATIVE_FLOAT8

    def why_not(self) -> str | None:
        """A build of torch without it, or a machine without a GPU."""
        if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
            return f"torch {torch.__version__} is built without it"
        return None if torch.cuda.is_available() else "torch finds no GPU, or no driver for it"

    def count(self) -> int:
        """GPUs that torch sees."""
        return torch.cuda.device_count()

    def start(self) -> None:
        """Make the context now, so that the first kernel is not timed with it."""
        torch.cuda.init()  # type: ignore[no-untyped-call]

    def memory(self, index: int) -> Memory:
        """Free and total as the driver says, the peak as torch's allocator says."""
        free, total = torch.cuda.mem_get_info(index)
        return Memory(free, total, torch.cuda.max_memory_allocated(index))

    def synchronize(self, index: int) -> None:
        """Wait for the GPU's streams."""
        torch.cuda.synchronize(index)


DEVICE = Cuda()
