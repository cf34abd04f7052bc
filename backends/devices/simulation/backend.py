"""Registers the simulated NPU with torch, under the name and the module that torch_npu uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from backends.devices.simulation.operators import SCHEMAS
from backends.devices.simulation.tensor import TYPE, SimulatedTensor, host_of

FACTORIES = ("empty.memory_format", "empty_strided")
_libraries: list[Any] = []
"""A torch.library.Library takes its operators with it when it goes."""


class SimulatedModule:
    """What `torch.npu` answers; one device, nothing queued."""

    is_simulated = True

    def is_available(self) -> bool:
        """There is always the one."""
        return True

    def is_initialized(self) -> bool:
        """It needs no start."""
        return True

    def _lazy_init(self) -> None:
        return

    def _is_in_bad_fork(self) -> bool:
        return False

    def device_count(self) -> int:
        """One."""
        return 1

    def current_device(self) -> int:
        """The one."""
        return 0

    def set_device(self, device: object) -> None:
        """There is no other."""

    def synchronize(self, device: object = None) -> None:
        """Every operation is done when it returns."""

    def empty_cache(self) -> None:
        """Nothing is cached."""

    def manual_seed_all(self, seed: int) -> None:
        """Random numbers are drawn on the host."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """Half precisions."""
        return [torch.float16, torch.bfloat16]


def why_not() -> str | None:
    """What is in the way of registering: an older torch, or another device in the one place torch has for such."""
    if is_registered():
        return None
    from torch.utils import backend_registration

    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        return f"torch {torch.__version__} has no devices written in Python; 2.13 has"
    name = torch._C._get_privateuse1_backend_name()  # noqa: SLF001 - torch has no public way to ask
    taken = name != "privateuseone" or hasattr(torch, TYPE)
    return f"this process has a device {name!r} already, as torch_npu makes one" if taken else None


def is_registered() -> bool:
    """Whether this process has the simulated device."""
    return isinstance(getattr(torch, TYPE, None), SimulatedModule)


def register(missing_dtypes: frozenset[torch.dtype]) -> None:
    """Make `torch.device("npu")` and the operators of `torch.ops.npu` usable; nothing happens the second time."""
    if is_registered():
        return
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    SimulatedTensor.missing_dtypes = missing_dtypes
    _setup_privateuseone_for_python_backend(TYPE, backend_module=SimulatedModule())
    factories = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    for name in FACTORIES:
        factories.impl(name, _factory(name), "PrivateUse1")  # type: ignore[no-untyped-call]
    factories.impl("_copy_from", _copy_from, "PrivateUse1")  # type: ignore[no-untyped-call]
    operators = torch.library.Library(TYPE, "DEF")  # type: ignore[no-untyped-call]
    for schema in SCHEMAS:
        operators.define(schema)  # type: ignore[no-untyped-call]
    _libraries.extend((factories, operators))


def _factory(name: str) -> Callable[..., Tensor]:
    packet, _, overload = name.partition(".")
    operator = getattr(getattr(torch.ops.aten, packet), overload or "default")

    def make(*args: Any, device: object = None, pin_memory: object = None, **kwargs: Any) -> Tensor:
        del device, pin_memory
        return SimulatedTensor(operator(*args, device=torch.device("cpu"), **kwargs))

    return make


def _copy_from(source: Tensor, destination: Tensor, non_blocking: bool = False) -> Tensor:
    del non_blocking
    host_of(destination).copy_(host_of(source))
    return destination
