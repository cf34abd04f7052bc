"""What post-processing made of a layer's parameters: which element of the new came from which of those as loaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from inspectors.probe.boxes import UNKNOWN, filled
from inspectors.probe.events import WeightRepacked
from inspectors.probe.lineage import Memory
from inspectors.probe.loadwatch import Ledger
from inspectors.probe.moves import Move, TooFineError
from inspectors.probe.tensors import is_tensor
from inspectors.probe.views import View, view_of

REMOVED = "removed"
_NOTHING_SEEN = -1

Tensors = dict[str, Any]


@dataclass(frozen=True)
class Processing:
    """A layer before its method runs: its tensors' places by full name, and the watch for the operations."""

    module: str
    layer: Any
    before: dict[str, tuple[View, int]]
    watch: Ledger


class Repacks:
    """The memory of one post-processing of all layers; a tensor that two layers share is followed through both."""

    def __init__(self) -> None:
        self._memory = Memory()

    def begin(self, module: str, layer: Any) -> Processing:
        """Take the layer's tensors as they are for what the load has left."""
        before: dict[str, tuple[View, int]] = {}
        for name, tensor in _tensors_of(module, layer):
            view = view_of(tensor)
            if view is None:
                continue
            buffer = self._memory.known(view)
            if buffer is None or not (buffer.pieces or buffer.root_of(view)):
                self._memory.read(name, tensor)
                buffer = self._memory.known(view)
            before[name] = view, buffer.sequence if buffer is not None else _NOTHING_SEEN
        watch = Ledger(None, None, lambda _: None, lambda _: None, self._memory)
        return Processing(module, layer, before, watch)

    def ended(self, processing: Processing) -> Iterator[WeightRepacked]:
        """What is new or changed in the layer, box by box, and what is gone."""
        after = dict(_tensors_of(processing.module, processing.layer))
        for name, tensor in after.items():
            view = view_of(tensor)
            if view is None:
                continue
            buffer = self._memory.known(view)
            now = view, buffer.sequence if buffer is not None else _NOTHING_SEEN
            if now != processing.before.get(name):
                yield from self._told(name, view)
        for name, (view, _) in processing.before.items():
            if name not in after:
                yield WeightRepacked(name, view.dtype, view.sizes, source=REMOVED)

    def _told(self, name: str, view: View) -> Iterator[WeightRepacked]:
        buffer = self._memory.known(view)
        names = ", ".join(buffer.names) if buffer is not None else ""
        operation = buffer.operation if buffer is not None else ""
        for move in self._memory.traced(view.as_move(), view.storage):
            if not _is_as_it_was(move, name, view):
                yield from _repacked(name, view, move, names, operation)


def _repacked(name: str, view: View, move: Move, names: str, operation: str) -> Iterator[WeightRepacked]:
    origin = move.origin.name if move.origin is not None else names if _is_computed(move) else ""
    try:
        boxes = filled(move, view)
    except TooFineError:
        whole = (0,) * len(view.sizes)
        yield WeightRepacked(
            name, view.dtype, view.sizes, whole, view.sizes, move.elements, origin or names, UNKNOWN,
            operation=operation,
        )  # fmt: skip
        return
    for box in boxes:
        yield WeightRepacked(
            name, view.dtype, view.sizes, box.start, box.length, box.elements, origin, box.source,
            box.source_offset, box.source_strides, operation,
        )  # fmt: skip


def _is_computed(move: Move) -> bool:
    return any(note.startswith("computed") for note in move.notes)


def _is_as_it_was(move: Move, name: str, view: View) -> bool:
    """Whether elements of a parameter are where they were before."""
    if move.origin is None or move.origin.name != name or move.is_cast or move.origin.dtype != view.dtype:
        return False
    is_same_layout = move.origin.sizes == view.sizes and view.is_row_major
    return is_same_layout and move.at_strides == move.to_strides and move.at == move.to - view.offset


def _tensors_of(module: str, layer: Any) -> Iterator[tuple[str, Any]]:
    """A layer's own parameters and buffers, and other tensors that it has as attributes, by full name."""
    found: Tensors = {}
    for held in ("_parameters", "_buffers"):
        found.update(getattr(layer, held, None) or {})
    found.update({key: value for key, value in getattr(layer, "__dict__", {}).items() if is_tensor(value)})
    prefix = f"{module}." if module else ""
    for key, value in found.items():
        if is_tensor(value):
            yield prefix + key, value
