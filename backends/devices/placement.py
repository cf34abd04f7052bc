"""Finds devices: each is one file, listed without being imported, and looked up by name or by torch device."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

import torch

from backends.devices.contract import Device, Memory
from backends.devices.errors import DeviceError

DECLARATION = "DEVICE ="
GROUP = "loadscope.devices"
_started: dict[str, Device] = {}
"""By torch's type, of which a simulated device shares the real one's."""


@dataclass(frozen=True)
class Placement:
    """The device a load runs on: its `name` among the plugins, what it answers, and which one of its kind."""

    name: str
    kind: Device
    index: int = 0

    @property
    def torch_device(self) -> torch.device:
        """What tensors are created on."""
        of_kind = self.kind.torch_type
        return torch.device(of_kind, self.index) if self.kind.count() > 1 else torch.device(of_kind)

    def memory(self) -> Memory:
        """Its memory now."""
        return self.kind.memory(self.index)

    def synchronize(self) -> None:
        """Wait until all work handed to it is done."""
        self.kind.synchronize(self.index)

    def __str__(self) -> str:
        number = f":{self.index}" if self.kind.count() > 1 else ""
        return f"{self.name}{number}" + (f" ({self.kind.note})" if self.kind.note else "")


def modules() -> Mapping[str, str]:
    """Name -> dotted module of every device, `_` in a file's name written `-`; none is imported."""
    ours = {
        path.stem.replace("_", "-"): f"{__package__}.{path.stem}"
        for path in sorted(Path(__file__).parent.glob("[!_]*.py"))
        if any(line.startswith(DECLARATION) for line in path.read_text(encoding="utf-8").splitlines())
    }
    foreign = {point.name: point.value.partition(":")[0] for point in importlib.metadata.entry_points(group=GROUP)}
    return {**foreign, **ours}


def device_named(name: str) -> Device:
    """The device of that name; raises DeviceError with the nearest known names."""
    known = modules()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        raise DeviceError(
            f"device {name!r} is not known.",
            f"{f'did you mean {near[0]}? ' if near else ''}Known: {', '.join(sorted(known))}",
        )
    return cast("Device", importlib.import_module(known[name]).DEVICE)


def place(text: str) -> Placement:
    """`name` or `name:index`, started; raises DeviceError for an unknown one, or one that cannot be used here."""
    name, _, number = text.partition(":")
    device = device_named(name)
    reason = device.why_not()
    if reason is not None:
        usable = [other for other in modules() if other != name and device_named(other).why_not() is None]
        raise DeviceError(f"device {name!r} cannot be used here: {reason}.", f"use one of: {', '.join(usable)}")
    if number and not (number.isdecimal() and int(number) < device.count()):
        last = device.count() - 1
        raise DeviceError(f"device {text!r} does not exist.", f"give a number from 0 to {last}, or none")
    device.start()
    _started[device.torch_type] = device
    return Placement(name, device, int(number or 0))


def devices_with(dtypes: Collection[torch.dtype]) -> list[str]:
    """The devices that can hold tensors of all of these dtypes, whether or not they are here."""
    return [name for name in modules() if not device_named(name).missing_dtypes & frozenset(dtypes)]


def device_of_type(torch_type: str) -> Device:
    """The device whose tensors have that `torch.device` type, the one that was started where there are several.

    Raises DeviceError where no file knows the type.
    """
    return _started.get(torch_type) or _of_type(torch_type)


@cache
def _of_type(torch_type: str) -> Device:
    for name in modules():
        device = device_named(name)
        if device.torch_type == torch_type:
            return device
    raise DeviceError(f"no device has torch's type {torch_type!r}.", f"use one of: {', '.join(modules())}")
