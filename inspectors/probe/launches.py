"""What can be told of a kernel launch: its tensors, its grid, and what a compiled Triton kernel says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from inspectors.probe.tensors import brief, is_tensor

UNTOLD = -1
MOST_ALIGNED_BYTES = 512
"""What every device's allocator aligns a storage to; more than that is not told apart."""


@dataclass(frozen=True)
class Tensors:
    """The tensors among some values, in order, lists flattened one level."""

    found: tuple[Any, ...]

    @classmethod
    def of(cls, values: Iterable[Any]) -> Tensors:
        """Those in `values`."""
        return cls(tuple(_tensors(values)))

    @property
    def shapes(self) -> tuple[str, ...]:
        """`bfloat16[4,256]` of each."""
        return tuple(brief(tensor) for tensor in self.found)

    @property
    def strides(self) -> tuple[str, ...]:
        """`[256,1]` of each, in elements; "" for one that has none."""
        return tuple(_stride(tensor) for tensor in self.found)

    @property
    def alignments(self) -> tuple[int, ...]:
        """The largest power of two, in bytes, that divides the place of each tensor's first element in its storage.

        At most MOST_ALIGNED_BYTES, which is also that of a tensor at the beginning; UNTOLD where it has no place. The
        same on every device and in every run, unlike an address.
        """
        return tuple(_alignment(tensor) for tensor in self.found)


def _tensors(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if is_tensor(value):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (one for one in value if is_tensor(one))


_texts: dict[tuple[int, ...], str] = {}


def _stride(tensor: Any) -> str:
    try:
        strides = tensor.stride()
    except (RuntimeError, NotImplementedError):
        return ""  # sparse and nested tensors
    text = _texts.get(strides)
    if text is None:
        text = _texts[strides] = f"[{','.join(map(str, strides))}]"
    return text


def _alignment(tensor: Any) -> int:
    if not _stride(tensor):
        return UNTOLD
    offset = int(tensor.storage_offset()) * int(tensor.element_size())
    return min(offset & -offset or MOST_ALIGNED_BYTES, MOST_ALIGNED_BYTES)


def grid_of(grid: Any, given: dict[str, Any]) -> tuple[int, ...]:
    """A Triton grid as numbers; one that is a function is asked with the launch's arguments."""
    grid = grid(given) if callable(grid) else grid
    return tuple(int(n) for n in grid) if isinstance(grid, (tuple, list)) else (int(grid),)


def asked(options: Mapping[str, Any]) -> dict[str, Any]:
    """`num_warps` and `num_stages` as the caller gave them: all that is known before, or without, compiling."""
    return {name: options[name] for name in ("num_warps", "num_stages") if isinstance(options.get(name), int)}


def compiled(kernel: Any) -> dict[str, Any]:
    """What Triton's CompiledKernel says of itself; registers and spills once it was loaded onto a device.

    Empty for anything else, such as the None that the interpreter returns.
    """
    metadata = getattr(kernel, "metadata", None)
    told = {
        "num_warps": getattr(metadata, "num_warps", None),
        "num_stages": getattr(metadata, "num_stages", None),
        "shared_bytes": getattr(metadata, "shared", None),
        "registers": getattr(kernel, "n_regs", None),
        "spills": getattr(kernel, "n_spills", None),
    }
    return {name: value for name, value in told.items() if isinstance(value, int)} if metadata is not None else {}
