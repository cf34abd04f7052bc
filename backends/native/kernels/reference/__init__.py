"""Reference kernels in plain torch, one operation a file, each an operator in the namespace `native`."""

from __future__ import annotations


def why_not(device: str) -> str | None:
    """Plain torch runs on every device of torch."""
    del device
    return None


def require_runnable(device: str) -> None:
    """Plain torch runs on every device of torch."""
    del device
