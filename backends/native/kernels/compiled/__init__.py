"""Kernels in C for the CPU, one operation a file, compiled when one is first called; behind each is the reference."""

from __future__ import annotations

import torch

from backends.native.errors import KernelError
from backends.native.kernels.compiled import library


def why_not(device: str) -> str | None:
    """Another device, or what keeps the C sources from being compiled, as far as that is known without trying."""
    if torch.device(device).type != "cpu":
        return f"C kernels run on the CPU, not on {device}"
    return library.why_not()


def require_runnable(device: str) -> None:
    """Raise KernelError where `why_not` has a reason, or compiling fails; compiles if nobody has before."""
    reason = why_not(device) or library.loaded().reason
    if reason is not None:
        raise KernelError(f"--kernels compiled: {reason}.", "install gcc or clang, or use --kernels reference")
