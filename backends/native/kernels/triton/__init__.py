"""Triton alternatives of reference kernels, one operation a file; importing a file imports triton."""

from __future__ import annotations

import importlib.util
import os

import torch

from backends.devices.placement import device_of_type
from backends.native.errors import KernelError

INTERPRETER = "TRITON_INTERPRET"


def why_not(device: str) -> str | None:
    """Triton is missing, or off where it cannot compile: it compiles for accelerators only."""
    return _found(device)[0]


def require_runnable(device: str) -> None:
    """Raise KernelError where `why_not` has a reason."""
    reason, remedy = _found(device)
    if reason is not None:
        raise KernelError(f"--kernels triton: {reason}.", f"{remedy}, or use --kernels reference")


def _found(device: str) -> tuple[str | None, str]:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed", "install triton"
    found = device_of_type(torch.device(device).type)
    if not found.has_values or os.environ.get(INTERPRETER) == "1":
        return None, ""
    if not found.triton_backends:
        return f"triton does not compile for {device}, and its interpreter is off", f"set {INTERPRETER}=1"
    if not any(importlib.util.find_spec(f"triton.backends.{name}") for name in found.triton_backends):
        missing = " or ".join(found.triton_backends)
        return f"this triton has no compiler for {device} ({missing})", f"install a triton with it, set {INTERPRETER}=1"
    return None, ""
