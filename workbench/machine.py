"""How fast this machine copies memory and multiplies matrices: measured once each boot, and told in every manifest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from workbench.places import cache_folder

KEY = "machine"
"""Where a manifest has it."""
_COPY_BYTES, _COPIES = 32 << 20, 4
_SIZE, _PRODUCTS = 512, 5


@dataclass(frozen=True)
class Machine:
    """`id` tells this boot of this machine with this many processors from others; nothing can be read from it.

    `memcpy_bytes_per_s` is what one thread copies (each byte is read and written once), `matmul_flops_per_s` a product
    of two float32 matrices by numpy with the threads that it has; 0 where it could not be measured.
    """

    id: str
    processors: int
    memcpy_bytes_per_s: float
    matmul_flops_per_s: float = 0.0

    @property
    def moved_bytes_per_s(self) -> float:
        """Reads and writes together, as the bytes of a kernel are counted."""
        return 2 * self.memcpy_bytes_per_s


def machine_of(facts: Mapping[str, Any]) -> Machine | None:
    """The machine that a manifest tells of, None for sessions of before or a malformed entry."""
    told = facts.get(KEY)
    if not isinstance(told, dict):
        return None
    known = {one.name: told.get(one.name, 0) for one in fields(Machine)}
    is_sound = isinstance(known["id"], str) and all(
        isinstance(value, (int, float)) and value >= 0 for name, value in known.items() if name != "id"
    )
    return Machine(**known) if is_sound else None


def measured_facts() -> dict[str, Any]:
    """The entry of a new manifest: what was measured since this machine was started, or is now, in 0.1 to 0.2 s."""
    path = cache_folder() / "machine.json"
    with contextlib.suppress(OSError, ValueError):
        kept = {KEY: json.loads(path.read_text(encoding="utf-8"))}
        known = machine_of(kept)
        if known is not None and known.id == _id():
            return kept
    found = asdict(measured())
    with contextlib.suppress(OSError):  # a cache that cannot be written only costs the next one its time
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.write_text(json.dumps(found), encoding="utf-8")
        part.replace(path)
    return {KEY: found}


def measured() -> Machine:
    """Measure now."""
    return Machine(_id(), _processors(), _memcpy_bytes_per_s(), _matmul_flops_per_s())


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _id() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = f"{(time.time() - time.monotonic()) / 600:.0f}"
    return hashlib.sha256(f"{platform.node()} {boot} {_processors()}".encode()).hexdigest()[:16]


def _memcpy_bytes_per_s() -> float:
    # Pages that were never written are all the same page of zeros, which stays in the cache.
    source, target = bytearray(b"\1") * _COPY_BYTES, memoryview(bytearray(b"\2") * _COPY_BYTES)
    return _COPY_BYTES / _least_s(lambda: target.__setitem__(slice(None), source), _COPIES)


def _matmul_flops_per_s() -> float:
    try:
        import numpy as np
    except ImportError:
        return 0.0
    matrix = np.full((_SIZE, _SIZE), 0.5, dtype=np.float32)
    return 2 * _SIZE**3 / _least_s(lambda: matrix @ matrix, _PRODUCTS)


def _least_s(act: Any, times: int) -> float:
    best = float("inf")
    for _ in range(times):
        began = time.perf_counter()
        act()
        best = min(best, time.perf_counter() - began)
    return max(best, 1e-9)
