"""Triton alternatives of reference kernels, one operation a file; importing a file imports triton."""

from __future__ import annotations

import importlib.util
import os

import torch

from backends.native.errors import KernelError


def require_runnable(device: str) -> None:
    """Raise KernelError without triton, and on a CPU without its interpreter: triton compiles for accelerators only."""
    if importlib.util.find_spec("triton") is None:
        raise KernelError("--kernels triton: triton is not installed.", "install triton, or use --kernels reference")
    if torch.empty(0, device=device).is_cpu and os.environ.get("TRITON_INTERPRET") != "1":
        raise KernelError(
            f"--kernels triton: triton does not compile for {device}, and its interpreter is off.",
            "set TRITON_INTERPRET=1, or use --kernels reference",
        )
