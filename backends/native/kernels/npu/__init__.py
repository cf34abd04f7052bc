"""Alternatives through torch_npu's operators, one operation a file; the same code runs on its simulation."""

from __future__ import annotations

import torch

from backends.native.errors import KernelError

NAMESPACE = "npu"
NEEDED = ("npu_quant_matmul", "npu_dynamic_quant", "npu_grouped_matmul", "npu_format_cast")


def why_not(device: str) -> str | None:
    """Another device, or a torch_npu without the operators; both the real and the simulated one register them."""
    if torch.device(device).type != NAMESPACE:
        return f"its operators run on NPUs, not on {device}"
    missing = [name for name in NEEDED if not hasattr(getattr(torch.ops, NAMESPACE), name)]
    return f"torch.ops.{NAMESPACE} has no {', '.join(missing)}" if missing else None


def require_runnable(device: str) -> None:
    """Raise KernelError where `why_not` has a reason."""
    reason = why_not(device)
    if reason is not None:
        raise KernelError(f"--kernels {NAMESPACE}: {reason}.", "use --kernels reference")
