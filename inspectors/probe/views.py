"""Strided views of memory: a tensor's place, read off it once, and what an elementwise copy makes of two."""

from __future__ import annotations

from typing import Any, NamedTuple

from inspectors.probe.moves import Move, Sizes
from inspectors.probe.tensors import dtype_name, shape_of


class View(NamedTuple):
    """A strided tensor: `storage` is its memory's identity, offset and strides are in bytes."""

    storage: int
    offset: int
    sizes: Sizes
    strides: Sizes
    item: int
    dtype: str

    def as_move(self) -> Move:
        """Every element onto itself."""
        return Move(
            self.sizes, self.offset, self.strides, self.item, None, self.offset, self.strides, self.item, (), False
        )

    @property
    def is_row_major(self) -> bool:
        """Whether the elements lie one after the other."""
        return self.strides == row_major(self.sizes, self.item)


def row_major(sizes: Sizes, item: int) -> Sizes:
    """Strides in bytes of a contiguous tensor; for dimensions of one element those of torch may differ."""
    strides, step = [], item
    for size in reversed(sizes):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def view_of(tensor: Any) -> View | None:
    """The strided view of a tensor; None for one without memory (sparse, meta, not yet materialized, empty)."""
    try:
        storage = tensor.untyped_storage()
        if not storage.data_ptr():
            return None
        item = tensor.element_size()
        offset, strides = tensor.storage_offset() * item, tensor.stride()
    except (AttributeError, RuntimeError, NotImplementedError, ValueError):
        return None
    if item != 1:
        strides = tuple(stride * item for stride in strides)
    return View(storage._cdata, offset, shape_of(tensor), tuple(strides), item, dtype_name(tensor))  # noqa: SLF001


def identity_of(tensor: Any) -> int:
    """What tells a tensor's storage from all others, also from later ones at its address; 0 for what has none."""
    try:
        return int(tensor.untyped_storage()._cdata)  # noqa: SLF001
    except (AttributeError, RuntimeError, NotImplementedError, ValueError):
        return 0  # ValueError: a parameter of torch's that gets its memory later


def copied(target: View, source: View) -> Move:
    """An elementwise copy, which may cast and broadcast, as a question to the memory that it read."""
    source = expanded(source, target.sizes)
    is_cast = source.dtype != target.dtype
    notes = (f"cast {source.dtype} to {target.dtype}",) if is_cast else ()
    return Move(
        target.sizes, target.offset, target.strides, target.item, None, source.offset, source.strides, source.item,
        notes, is_cast,
    )  # fmt: skip


def expanded(view: View, sizes: Sizes) -> View:
    """Broadcast as an elementwise copy does: stride 0 where one element stands for many."""
    if sizes == view.sizes:
        return view
    missing = len(sizes) - len(view.sizes)
    if missing < 0:  # torch takes [1, 1] for [1]
        view = view._replace(sizes=view.sizes[-missing:], strides=view.strides[-missing:])
        missing = 0
    strides = [
        0 if have == 1 and want != 1 else stride
        for have, want, stride in zip(view.sizes, sizes[missing:], view.strides, strict=True)
    ]
    return view._replace(sizes=sizes, strides=(*[0] * missing, *strides))
