"""The error of a device that cannot be had, or of a launch it would not take."""

from __future__ import annotations


class DeviceError(ValueError):
    """Two lines: `what` names the device and what was found, `remedy` says what to try."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what}\n  try: {self.remedy}"


class GridError(DeviceError):
    """A kernel launch that the device would not take, found before it was made."""
