"""Watches the operations inside one loader call: cuts of the checkpoint tensor and writes of parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from inspectors.probe.dispatch import only_writes, schema_name, written_arguments
from inspectors.probe.events import WeightWritten
from inspectors.probe.lineage import Box, Buffer, Piece, View, box_of, single_steps
from inspectors.probe.names import Yielded
from inspectors.probe.splits import Cut, cuts, is_cut
from inspectors.probe.tensors import dtype_name, is_tensor, shape_of, storage_of

MAX_BOXES_A_WRITE = 256
_COPIES = {"aten::clone", "aten::_to_copy", "aten::contiguous", "aten::lift_fresh_copy", "aten::alias_copy"}
_FRESH = {"aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty", "aten::new_empty_strided"}
_CONSTANTS = {
    "aten::zeros", "aten::ones", "aten::full", "aten::zeros_like", "aten::ones_like", "aten::full_like",
    "aten::new_zeros", "aten::new_ones", "aten::new_full", "aten::scalar_tensor", "aten::arange",
}  # fmt: skip
_FILLS = {"aten::fill_", "aten::zero_"}
_MADE_BEFORE = "made before the call"
_PLACED = ("index", "scatter", "masked", "put", "set_", "resize")

FindParameter = Callable[[View], "tuple[str, View] | None"]


def view_of(tensor: Any) -> View | None:
    """The strided view of a tensor; None for one without storage (sparse, meta)."""
    storage = storage_of(tensor)
    if not storage:
        return None
    return View(
        storage, tensor.storage_offset(), shape_of(tensor), tensor.stride(), tensor.element_size(), dtype_name(tensor)
    )


class SplitWatch:
    """Level `calls`: notices cuts of the loaded tensor, its views and its copies."""

    def __init__(self, tensor: Any, on_cut: Callable[[Cut], None]) -> None:
        self._on_cut = on_cut
        self._lineage = {storage_of(tensor)} - {0}

    @staticmethod
    def concerns(func: Any) -> bool:
        """Whether `saw` has anything to note about calls of this operator: cuts, and what makes new memory."""
        return is_cut(func) or (not func.is_view and not only_writes(func))

    def saw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """One operation ran."""
        is_of_lineage = bool(args) and self._is_of_lineage(args[0])
        if not func.is_view:
            made = {storage_of(one) for one in _tensors(out)} - {0}
            self._lineage = self._lineage | made if is_of_lineage else self._lineage - made  # memory is used again
        if is_of_lineage:
            for cut in cuts(func, args, kwargs, out):
                self._on_cut(cut)

    def _is_of_lineage(self, value: Any) -> bool:
        if isinstance(value, (list, tuple)):
            return any(self._is_of_lineage(one) for one in value)
        return is_tensor(value) and storage_of(value) in self._lineage


class Ledger(SplitWatch):
    """Level `ledger`: also says for every write into a parameter which box was filled and from where."""

    def __init__(
        self,
        tensor: Any,
        noted: Yielded | None,
        on_cut: Callable[[Cut], None],
        on_write: Callable[[WeightWritten], None],
        find_parameter: FindParameter,
        look_again: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(tensor, on_cut)
        self._on_write, self._find_parameter = on_write, find_parameter
        self._look_again = look_again
        self._buffers: dict[int, Buffer] = {}
        given = view_of(tensor)
        self._root, self._root_note = _root(given, noted)
        if given is not None:
            self._buffers[given.storage] = Buffer(given, is_root=True)

    @staticmethod
    def concerns(func: Any) -> bool:
        """Whether `saw` has anything to note about calls of this operator: also writes."""
        return is_cut(func) or not func.is_view

    def saw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """One operation ran."""
        super().saw(func, args, kwargs, out)
        if func.is_view:
            return
        written = written_arguments(func, args, kwargs)
        if written:
            self._saw_writing(schema_name(func), written, args, kwargs)
        else:
            self._saw_making(schema_name(func), args, kwargs, out)

    def rebound(self, name: str, tensor: Any) -> None:
        """`parameter.data = x`: the parameter now is other memory, as a whole; fresh memory holds nothing yet."""
        view = view_of(tensor)
        buffer = self._buffers.get(view.storage) if view is not None else None
        if view is not None and (buffer is None or buffer.is_root or buffer.pieces):
            self._write(name, view, view, self._shown(view), "data =")

    def _saw_writing(self, op: str, written: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        sources: list[Any] = [None] * len(written)
        if op == "aten::copy_":
            sources = [args[1] if len(args) > 1 else kwargs.get("src")]
        elif op == "aten::_foreach_copy_":
            sources = list(args[1] if len(args) > 1 else kwargs.get("src", ()))
        elif op == "aten::fill_" and len(args) > 1 and is_tensor(args[1]):
            sources = [args[1]]
        for tensor, source in zip(written, sources, strict=False):
            target = view_of(tensor) if is_tensor(tensor) else None
            if target is None or not target.elements:
                continue
            pieces = self._pieces(op, target, source)
            self._look_again()
            found = self._find_parameter(target)
            if found is None:
                self._fill_buffer(target, pieces)
            elif pieces is None:
                self._on_write(_unknown(found[0], target, found[1], op))
            else:
                self._write(found[0], found[1], target, pieces, op)

    def _pieces(self, op: str, target: View, source: Any) -> list[Piece] | None:
        whole = (0,) * len(target.sizes)
        if op in _FILLS and source is None:
            return [Piece(whole, target.sizes, None, ("constant",))]
        view = view_of(source) if is_tensor(source) else None
        if view is None:
            return None
        cast = () if view.dtype == target.dtype else (f"cast {view.dtype} to {target.dtype}",)
        shown = self._shown(view.expanded(target.sizes))
        return [replace(piece, notes=(*piece.notes, *cast)) for piece in shown]

    def _shown(self, view: View) -> list[Piece]:
        buffer = self._buffers.get(view.storage)
        if buffer is None:
            return [Piece((0,) * len(view.sizes), view.sizes, None, ("unknown",))]
        return buffer.shown(view)

    def _fill_buffer(self, target: View, pieces: list[Piece] | None) -> None:
        buffer = self._buffers.get(target.storage)
        if buffer is None or buffer.is_root:
            return
        box = box_of(target, buffer.layout)
        is_aligned = box is not None and len(target.sizes) == len(buffer.layout.sizes)
        if box is None or pieces is None or not is_aligned or list(box.order) != sorted(box.order):
            buffer.pieces = [Piece((0,) * len(buffer.layout.sizes), buffer.layout.sizes, None, ("unknown",))]
            return
        for piece in pieces:
            start = tuple(a + b for a, b in zip(box.start, piece.start, strict=True))
            buffer.pieces.append(replace(piece, start=start))

    def _saw_making(self, op: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        for one in _tensors(out):
            view = view_of(one)
            if view is not None:
                self._buffers[view.storage] = Buffer(view, pieces=list(self._made(op, view, args, kwargs)))

    def _made(self, op: str, view: View, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Piece]:
        whole = (0,) * len(view.sizes)
        if op in _COPIES and is_tensor(args[0]):
            yield from self._pieces("aten::copy_", view, args[0]) or ()
        elif op in {"aten::cat", "aten::stack"}:
            yield from self._joined(op, view, args, kwargs)
        elif op in _CONSTANTS:
            yield Piece(whole, view.sizes, None, ("constant",))
        elif op not in _FRESH:
            is_lineage = any(self._is_of_lineage(one) for one in (*args, *kwargs.values()))
            yield Piece(whole, view.sizes, None, (f"computed by {op}" if is_lineage else "unknown",))

    def _joined(self, op: str, view: View, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Piece]:
        dim = int(args[1] if len(args) > 1 else kwargs.get("dim", 0)) % max(1, len(view.sizes))
        at = 0
        for tensor in args[0]:
            part = view_of(tensor)
            if part is None or not part.elements:
                continue
            length = 1 if op == "aten::stack" else part.sizes[dim]
            if op == "aten::stack":
                sizes, strides = list(part.sizes), list(part.strides)
                sizes.insert(dim, 1)
                strides.insert(dim, 0)
                part = replace(part, sizes=tuple(sizes), strides=tuple(strides))
            for piece in self._shown(part):
                start = tuple(s + at if d == dim else s for d, s in enumerate(piece.start))
                yield replace(piece, start=start)
            at += length

    def _write(self, name: str, base: View, target: View, pieces: list[Piece], op: str) -> None:
        for piece in pieces:
            part = target.part(piece.start, piece.length)
            box, found = box_of(part, base), self._source_box(piece.source)
            if box is not None and (found is not None or piece.source is None):
                self._on_write(self._written(name, part, box, found, piece, op))
                continue
            for view, source in single_steps(part, piece.source, MAX_BOXES_A_WRITE):
                written = self._written(name, view, box_of(view, base), self._source_box(source), piece, op)
                self._on_write(written)

    def _source_box(self, source: View | None) -> Box | None:
        return box_of(source, self._root) if source is not None and self._root is not None else None

    def _written(
        self, name: str, target: View, box: Box | None, found: Box | None, piece: Piece, op: str
    ) -> WeightWritten:
        if box is None:
            return WeightWritten(parameter=name, elements=target.elements, source="unknown", operation=op)
        notes = piece.notes if piece.source is None else (*self._root_note, *piece.notes)
        if found is None or self._root_note == (_MADE_BEFORE,):
            said = ", ".join(dict.fromkeys(notes)) or "unknown"
            return WeightWritten(name, box.start, box.length, target.elements, said, (), (), op)
        marks = list(notes)
        if found.is_broadcast:
            marks.append("broadcast")
        if not found.is_broadcast and found.order != box.order and box.order:
            marks.append("transposed")
        said = ", ".join(dict.fromkeys(marks))
        return WeightWritten(name, box.start, box.length, target.elements, said, found.start, found.length, op)


def _root(given: View | None, noted: Yielded | None) -> tuple[View | None, tuple[str, ...]]:
    """The tensor that source boxes are boxes of, and what was done to the checkpoint tensor before the call."""
    if given is None or noted is None:
        return given, ()
    if noted.is_rearranged:
        return given, (_MADE_BEFORE,)
    if noted.storage == given.storage:
        sizes, strides = noted.sizes, noted.strides
        return View(noted.storage, noted.offset, sizes, strides, noted.item_bytes, noted.dtype), ()
    if noted.sizes != given.sizes:
        return given, (_MADE_BEFORE,)
    return given, (f"cast {noted.dtype} to {given.dtype}",) if noted.dtype != given.dtype else ()


def _unknown(name: str, target: View, base: View, op: str) -> WeightWritten:
    """A write that is not understood: its place is given only when the operator writes all of the view."""
    is_placed = any(word in op for word in _PLACED)
    box = box_of(target, base) if not is_placed else None
    if box is None:
        return WeightWritten(parameter=name, elements=target.elements, source="unknown", operation=op)
    return WeightWritten(name, box.start, box.length, target.elements, "unknown", (), (), op)


def _tensors(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [one for one in value if is_tensor(one)]
    return [value] if is_tensor(value) else []
