"""Errors of the native stack: what went wrong, with names, and what to try."""

from __future__ import annotations


class NativeError(Exception):
    """Two lines: `what` names the tensor or file, what was expected and what was found; `remedy` says what to try."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what}\n  try: {self.remedy}"


class CheckpointError(NativeError, ValueError):
    """A file of the checkpoint is missing, truncated or malformed."""


class ConfigError(NativeError, ValueError):
    """A field of config.json is missing, of the wrong type, or not supported."""


class UnknownNameError(NativeError, ValueError):
    """A name which no plugin has; the remedy carries the nearest known names."""


class ShapeError(NativeError, ValueError):
    """A size that cannot be divided, or a tensor that does not fit its parameter."""


class SkipDecisionError(NativeError, ValueError):
    """An ignore list that names some shards of a fused module and not the others."""


class LoadError(NativeError, RuntimeError):
    """A load that ended with parameters nothing was written to."""


class LockstepError(NativeError, RuntimeError):
    """Ranks that met at different collectives, which would hang a real group."""


class KernelError(NativeError, RuntimeError):
    """Kernels that cannot run on the chosen device."""


class SamplingError(NativeError, ValueError):
    """A way of drawing tokens that is out of range."""


class TokenizerError(NativeError, RuntimeError):
    """A prompt in words for a checkpoint whose tokenizer cannot be read."""
