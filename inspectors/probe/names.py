"""Which checkpoint tensor a loader is given: by identity, by memory, else the one that was read last."""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any, NamedTuple

from inspectors.probe.tensors import dtype_name, shape_of, storage_of

_RECENT = 64


class Yielded(NamedTuple):  # made at every read: a fifth of a frozen dataclass's cost
    """A tensor as the weights iterator gave it; `begin`/`end` are its addresses, the rest its layout in elements."""

    name: str
    begin: int
    end: int
    storage: int
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    item_bytes: int
    dtype: str
    is_rearranged: bool = False
    """Whether elements changed places after the read, so that a place here is none on disk."""


_Held = tuple["weakref.ref[Any]", Yielded]


class TensorNames:
    """Remembers what was yielded without keeping any tensor alive."""

    def __init__(self) -> None:
        self._by_id: dict[int, _Held] = {}
        self._look_again_at = _RECENT
        self._recent: deque[_Held] = deque(maxlen=_RECENT)
        self._last: Yielded | None = None

    def note(self, name: str, tensor: Any) -> None:
        """Called for every tensor that is read."""
        self._last = layout_of(name, tensor)
        self._hold(self._last, tensor)

    def note_rearranged(self, tensor: Any) -> None:
        """Called for a tensor that the engine made of the one read last, with its elements in other places."""
        if self._last is not None:
            self._hold(layout_of(self._last.name, tensor)._replace(is_rearranged=True), tensor)

    def note_made(self, name: str, tensor: Any) -> None:
        """Called for a tensor that the engine made of those it has read; `name` is of all of them."""
        self._hold(layout_of(name, tensor), tensor)

    def _hold(self, noted: Yielded, tensor: Any) -> None:
        try:
            held: _Held = (weakref.ref(tensor), noted)
        except TypeError:
            return  # an engine's own plain value: only "the last one read" can name it
        self._by_id[id(tensor)] = held
        self._recent.append(held)
        if len(self._by_id) > self._look_again_at:
            self._by_id = {key: one for key, one in self._by_id.items() if one[0]() is not None}
            self._look_again_at = 2 * len(self._by_id) + _RECENT

    def of(self, tensor: Any) -> Yielded | None:
        """The checkpoint tensor that `tensor` is, or lies in, or most likely came from."""
        for candidate in (tensor, getattr(tensor, "_base", None)):
            known = self._by_id.get(id(candidate)) if candidate is not None else None
            if known is not None and known[0]() is candidate:
                return known[1]
        address = _address(tensor)
        for held, noted in reversed(self._recent):
            if noted.begin <= address < noted.end and held() is not None:
                return noted
        return self._last


def layout_of(name: str, tensor: Any) -> Yielded:
    """Where a strided tensor lies in memory; all zero for what has no storage."""
    storage = storage_of(tensor)
    if not storage:
        return Yielded(name, 0, 0, 0, 0, shape_of(tensor), (), 0, "")
    offset, item, sizes = tensor.storage_offset(), tensor.element_size(), shape_of(tensor)
    begin = storage + offset * item
    end, strides = begin + tensor.nbytes, tensor.stride()
    return Yielded(name, begin, end, storage, offset, sizes, strides, item, dtype_name(tensor))


def _address(tensor: Any) -> int:
    try:
        return int(tensor.data_ptr())
    except (AttributeError, RuntimeError, NotImplementedError, ValueError):
        return 0
