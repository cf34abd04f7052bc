"""Notices writes that no operator made: through numpy, raw pointers and threads that cannot be followed."""

from __future__ import annotations

import sys
from typing import Any

from inspectors.probe.tensors import has_memory, unobserved

WINDOW_BYTES = 64
MAX_WINDOWS = 1024
UNSEEN = "its memory changed during a loader call in which no operator wrote to it (numpy, a raw pointer, a thread?)"
EARLIER = "an earlier call of a loader that writes without operators, and none was seen in that call either"


class Fingerprint:
    """Bytes of a parameter as they were: all of them up to 64 KiB, else 1024 windows of 64 bytes all over it."""

    __slots__ = ("_bytes",)

    def __init__(self, parameter: Any) -> None:
        self._bytes = _sample(parameter)

    def differs(self, parameter: Any) -> bool:
        """Whether the parameter's bytes are others now; False where they cannot be compared."""
        now = _sample(parameter)
        if self._bytes is None or now is None or self._bytes.shape != now.shape:
            return False
        with unobserved():
            return not sys.modules["torch"].equal(self._bytes, now)


def _sample(parameter: Any) -> Any:
    """A copy of the bytes between the parameter's first element and its last; None for what has none."""
    if not has_memory(parameter) or not parameter.numel():
        return None
    torch = sys.modules["torch"]
    with unobserved():
        item = parameter.element_size()
        begin = parameter.storage_offset() * item
        reach = sum((size - 1) * stride for size, stride in zip(parameter.shape, parameter.stride(), strict=True))
        whole = torch.empty(0, dtype=torch.uint8, device=parameter.device)
        whole.set_(parameter.untyped_storage(), begin, ((reach + 1) * item,), (1,))
        size = whole.numel()
        if size <= WINDOW_BYTES * MAX_WINDOWS:
            return whole.clone()
        step = (size - WINDOW_BYTES) // (MAX_WINDOWS - 1)
        return whole.as_strided((MAX_WINDOWS, WINDOW_BYTES), (step, 1), begin).clone()


class Trust:
    """Which loaders are known to write with operators: only the others' parameters are compared before and after.

    A loader earns it by the first call in which an operator's write is seen, and loses it by a call without.
    """

    def __init__(self) -> None:
        self._trusted: set[str] = set()
        self._doubted: dict[str, list[str]] = {}

    def before(self, loader: str, parameter: Any) -> Fingerprint | None:
        """What to compare with after the call, if the loader is not trusted."""
        return None if loader in self._trusted else Fingerprint(parameter)

    def after(
        self, loader: str, name: str, parameter: Any, before: Fingerprint | None, *, has_written: bool
    ) -> list[tuple[str, str]]:
        """The parameters to be suspected after a call, and why."""
        if has_written:
            self._trusted.add(loader)
            return []
        self._trusted.discard(loader)
        if before is None:
            self._doubted.setdefault(loader, []).append(name)
            return []
        if not before.differs(parameter):
            return []
        return [(name, UNSEEN), *((one, EARLIER) for one in self._doubted.pop(loader, ()))]
