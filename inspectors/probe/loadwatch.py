"""Watches the operations inside one loader call: which elements of parameters they write, and from where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inspectors.probe.body import Body
from inspectors.probe.boxes import place_of
from inspectors.probe.dispatch import schema_name, written_arguments
from inspectors.probe.events import WeightWritten, WriteSuspected
from inspectors.probe.fingerprints import Fingerprint, Trust
from inspectors.probe.lineage import MADE_BEFORE, UNINITIALIZED, UNKNOWN, Buffer, Held, Memory, Recent, Root
from inspectors.probe.moves import Move, TooFineError, meet
from inspectors.probe.names import Yielded
from inspectors.probe.operators import MAKERS, METADATA, WRITERS, Reader, Step
from inspectors.probe.places import TooManyPlacesError, UnreadableError
from inspectors.probe.splits import Cut, is_cut
from inspectors.probe.splitwatch import SplitWatch, tensors_in
from inspectors.probe.tensors import is_tensor
from inspectors.probe.views import View, copied, identity_of, view_of
from inspectors.probe.writes import placed, written

MAX_CHAIN = 4
_PLACED = ("index", "scatter", "masked", "put", "diagonal", "copy_")
"""Words in the names of operators that leave some elements of what they write to as they are."""
_REBOUND = "data ="
_FOREACH_COPY = "aten::_foreach_copy_"

Facts = dict[str, Any]
_cache: dict[tuple[Any, ...], list[Facts]] = {}
MAX_CACHED = 8192


class Ledger(SplitWatch):
    """Level `ledger`: also says for every write into a parameter which box was filled and from where.

    `noted` is the tensor that the call is about. Events go to `on_write`; `look_again` is called before a write is
    attributed, so that parameters which were given other memory are found in it.
    """

    def __init__(
        self,
        tensor: Any,
        noted: Yielded | None,
        on_cut: Callable[[Cut], None],
        on_write: Callable[[Body], None],
        memory: Memory,
        look_again: Callable[[], None] = lambda: None,
        parameter: Any = None,
    ) -> None:
        super().__init__(tensor, on_cut)
        self._emit, self._memory, self._look_again = on_write, memory, look_again
        self._parameter, self._home = parameter, identity_of(parameter)
        self._name = noted.name if noted is not None else ""
        self._root = self._find_root(tensor, noted)
        self.written: set[str] = set()
        self.is_handed_on = False
        self._guarded: tuple[Trust, str, str, Fingerprint | None] | None = None

    def guard(self, trust: Trust, loader: str, name: str) -> None:
        """The call of `loader` for the parameter `name` begins: its memory is not to change unseen."""
        if self._parameter is not None:
            self._guarded = trust, loader, name, trust.before(loader, self._parameter)

    def ended(self) -> None:
        """The call is over: suspect what changed unseen."""
        if self._guarded is None or self.is_handed_on:
            return
        trust, loader, name, before = self._guarded
        found = trust.after(loader, name, self._parameter, before, has_written=bool(self.written))
        for suspected, reason in found:
            self._emit(WriteSuspected(suspected, "", reason))

    def _find_root(self, tensor: Any, noted: Yielded | None) -> Root | None:
        root = self._memory.root_read_last(tensor)
        if root is not None:
            return root
        view, memory = view_of(tensor), self._memory
        if view is None:
            return None
        with memory.lock:
            buffer = memory.known(view)
            if buffer is None:
                return memory.read(self._name, tensor, is_exact=noted is None)
            return buffer.root_of(view)

    @staticmethod
    def concerns(func: Any) -> bool:
        """Whether `saw` has anything to note about calls of this operator: also writes."""
        return is_cut(func) or not func.is_view

    def saw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """One operation ran."""
        kind = _kinds.get(func) or _kinds.setdefault(func, _Kind(func))
        if kind.is_copy and self._copied(args):
            return
        if not kind.writes:
            super().saw(func, args, kwargs, out)
        if func.is_view:
            return
        with self._memory.lock:
            if kind.writes:
                self._saw_writing(kind, args, kwargs)
            else:
                self._saw_making(kind, args, kwargs, out)

    def raised(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """One operation raised: what it was to write to may hold a part of it."""
        kind = _kinds.get(func) or _kinds.setdefault(func, _Kind(func))
        if not kind.writes or kind.name in METADATA:
            return
        with self._memory.lock:
            touched: dict[str, None] = {}
            for tensor in written_arguments(func, args, kwargs):
                target = view_of(tensor) if is_tensor(tensor) else None
                if target is not None:
                    self._memory.buffer(tensor, target).put([target.as_move().opaque(UNKNOWN)])
                    held = self._memory.holding(target)
                    touched.update({held.name: None} if held is not None else {})
            for name in touched:
                self._emit(WriteSuspected(name, kind.name, "an operator raised, and may have written a part"))

    def rebound(self, name: str, tensor: Any) -> None:
        """`parameter.data = x`: the parameter now is other memory, as a whole; fresh memory holds nothing yet."""
        view, before = view_of(tensor), self._memory.buffers.get(self._home)
        self._home = identity_of(self._parameter)
        if view is None:
            return
        with self._memory.lock:
            moves = self._memory.traced(view.as_move(), view.storage)
            known = [move for move in moves if UNINITIALIZED not in move.notes]
            self._write(Held(name, view, -1), view, known, _REBOUND)
            if len(known) < len(moves) and before is not None and (before.pieces or before.recent):
                self._emit(WriteSuspected(name, _REBOUND, "it was given other memory, without what it held before"))

    # --- the common case: one view of the checkpoint tensor is copied into one of the parameter

    def _copied(self, args: tuple[Any, ...]) -> bool:
        """Write down a copy whose like was seen before, by its geometry alone; False if it was not."""
        if len(args) < 2 or self._root is None:
            return False
        target, source = args[0], args[1]
        root, memory = self._root, self._memory
        storage = target.untyped_storage()._cdata  # noqa: SLF001
        held = memory.parameters.get(storage)
        if held is None or len(held) > 1 or (storage != self._home and not self._is_at_home()):
            return False
        buffer = memory.buffers[root.view.storage]
        if source.untyped_storage()._cdata != root.view.storage or buffer.pieces:  # noqa: SLF001
            return False
        one = held[0]
        at, base = source.storage_offset() * source.element_size() - root.begin, one.view
        key = (
            one.number, root.number, target.storage_offset() * target.element_size() - base.offset, target.size(),
            target.stride(), target.dtype, at, source.size(), source.stride(), source.dtype,
        )  # fmt: skip
        known = _cache.get(key)
        if known is None:
            return self._copied_first(key, one, root, (target, source))
        for facts in known:
            body = object.__new__(WeightWritten)
            body.__dict__.update(facts, parameter=one.name)
            if root.origin.name != self._name:
                body.__dict__["checkpoint_name"] = root.origin.name
            self._emit(body)
        memory.buffers[storage].put_copy(Recent(root, (base.offset + key[2], *key[3:6]), (at + root.begin, *key[7:])))
        self.written.add(one.name)
        return True

    def _is_at_home(self) -> bool:
        """Whether the call's parameter still lies where it did."""
        return self._parameter is None or identity_of(self._parameter) == self._home

    def _copied_first(self, key: tuple[Any, ...], held: Held, root: Root, pair: tuple[Any, Any]) -> bool:
        target, source = view_of(pair[0]), view_of(pair[1])
        if target is None or source is None:
            return False
        with self._memory.lock:
            buffer = self._memory.buffers[root.view.storage]
            if buffer.root_of(source) is not root:
                return False
            moves = buffer.traced(copied(target, source))
        if len(_cache) > MAX_CACHED:
            _cache.clear()
        found = [written("", held.view, move, "aten::copy_") for move in moves if move.elements]
        _cache[key] = [{**vars(body), "checkpoint_name": ""} for bodies in found for body in bodies]
        return self._copied(pair)

    # --- everything else

    def _saw_writing(self, kind: _Kind, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if kind.name in METADATA:
            return
        targets = [one for one in written_arguments(kind.func, args, kwargs) if is_tensor(one)]
        values: list[Any] = [None] * len(targets)
        if kind.name == _FOREACH_COPY:
            values = list(args[1] if len(args) > 1 else kwargs["src"])
        self._look_again()
        for tensor, value in zip(targets, values, strict=True):
            target = view_of(tensor)
            if target is None:
                continue
            given = (tensor, value) if value is not None else args
            buffer = self._memory.buffer(tensor, target)
            moves = self._moves(kind, target, given, kwargs)
            held = self._memory.holding(target)
            self._memory.touch(buffer)
            if held is not None:
                self._write(held, target, moves, kind.name, kind)
            buffer.put(moves if isinstance(moves, list) else [target.as_move().opaque(UNKNOWN)])
            buffer.operation = kind.name

    def _moves(
        self, kind: _Kind, target: View, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[Move] | TooManyPlacesError | None:
        """What a writing operator put into `target`; None where that is not known, and not even where."""
        try:
            steps = list(kind.reader(target, args, kwargs)) if kind.reader is not None else None
        except TooManyPlacesError as error:
            return error
        except UnreadableError:
            return None
        if steps is not None and any(_reads_itself(step, target) for step in steps):
            return None
        if steps is None:
            if not kind.is_pointwise:
                return None
            own = self._memory.known(target)
            said = self._computed(kind.name, (args, kwargs), own)
            return [target.as_move().opaque(said)]
        return self._traced(target, steps)

    def _traced(self, target: View, steps: list[Step]) -> list[Move]:
        moves: list[Move] = []
        into = self._memory.known(target)
        for step in steps:
            if step.source is None:
                moves.append(step.target.as_move().opaque(step.note))
                continue
            moves += self._memory.traced(copied(step.target, step.source), step.source.storage)
            come = self._memory.known(step.source)
            if into is not None and come is not None and come is not into:
                into.names = tuple(dict.fromkeys((*into.names, *self._memory.names_in(step.source))))
                into.chain = tuple(dict.fromkeys((*into.chain, *come.chain)))[-MAX_CHAIN:]
        return [move for move in moves if move.elements]

    def _computed(self, op: str, given: Any, into: Buffer | None) -> str:
        """Note in a buffer what it was computed from and how, and say so; unknown if from nothing that is known."""
        names: dict[str, None] = dict.fromkeys(into.names if into is not None else ())
        chain: dict[str, None] = dict.fromkeys(into.chain if into is not None else ())
        for tensor in tensors_in(given):
            view = view_of(tensor)
            buffer = self._memory.known(view) if view is not None else None
            if view is not None and buffer is not None:
                names.update(dict.fromkeys(self._memory.names_in(view)))
                chain.update(dict.fromkeys(buffer.chain))
        chain.pop(op, None)
        chain[op] = None
        if into is not None:
            into.names, into.chain = tuple(names), tuple(chain)[-MAX_CHAIN:]
        return f"computed by {', '.join(list(chain)[-MAX_CHAIN:])}" if names else UNKNOWN

    def _saw_making(self, kind: _Kind, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        made = tensors_in(out)
        if not made:
            return
        given = {identity_of(one) for one in tensors_in((args, kwargs))}
        for tensor in made:
            view = view_of(tensor)
            if view is None or view.storage in given:
                continue  # a view under another name
            buffer = self._memory.made(tensor, view, kind.name)
            try:
                steps = list(kind.reader(view, args, kwargs)) if kind.reader is not None else None
            except UnreadableError:
                steps = None
            if steps is None:
                buffer.put([view.as_move().opaque(self._computed(kind.name, (args, kwargs), buffer))])
            else:
                buffer.put(self._traced(view, steps))

    def _write(
        self,
        held: Held,
        target: View,
        moves: list[Move] | TooManyPlacesError | None,
        op: str,
        kind: _Kind | None = None,
    ) -> None:
        self.written.add(held.name)
        if isinstance(moves, list):
            for move in moves:
                for body in written(held.name, held.view, move, op):
                    if move.origin is not None and move.origin.name != self._name:
                        body.__dict__["checkpoint_name"] = move.origin.name
                    self._emit(body)
            return
        if isinstance(moves, TooManyPlacesError):
            self._emit(placed(held.name, held.view, moves, op))
            return
        box = place_of(target, held.view) if not any(word in op for word in _PLACED) else None
        start, length = box if box is not None else ((), ())
        self._emit(WeightWritten(held.name, start, length, target.as_move().elements, UNKNOWN, (), (), op))
        if kind is not None and not kind.name.startswith("aten::"):
            reason = "an operator that the ledger does not know was given the memory to write to"
            self._emit(WriteSuspected(held.name, op, reason))


def _reads_itself(step: Step, target: View) -> bool:
    """Whether an operator reads elements that it writes, at other places: then the order of its steps decides."""
    source = step.source
    if source is None or source.storage != target.storage or source == step.target:
        return False
    try:
        return bool(meet(source.as_move(), target.as_move())[0])
    except TooFineError:
        return True


class _Kind:
    """What is known of an operator, looked up once."""

    def __init__(self, func: Any) -> None:
        self.func, self.name = func, schema_name(func)
        arguments = func._schema.arguments  # noqa: SLF001 - the public way to an operator's schema
        self.writes = not func.is_view and any(a.alias_info is not None and a.alias_info.is_write for a in arguments)
        self.is_copy = self.name == "aten::copy_"
        is_out = self.writes and any(a.is_out for a in arguments)
        self.reader: Reader | None = (MAKERS if is_out or not self.writes else WRITERS).get(self.name)
        if self.name == _FOREACH_COPY:
            self.reader = WRITERS["aten::copy_"]
        elif self.name == "aten::_foreach_zero_":
            self.reader = WRITERS["aten::zero_"]
        is_whole = not any(word in self.name for word in _PLACED)
        self.is_pointwise = self.name.startswith("aten::") and is_whole and (is_out or self.name.endswith("_"))


_kinds: dict[Any, _Kind] = {}


def note_taken(memory: Memory, made: Any, source: Any, dim: int, order: Any) -> None:
    """Outside of a call an engine took the rows (or what lies along `dim`) `order` of `source`, one after the other."""
    view = view_of(made)
    if view is None:
        return
    with memory.lock:
        buffer = memory.made(made, view, "aten::index_select")
        try:
            steps = list(MAKERS["aten::index_select"](view, (source, dim, order), {}))
        except UnreadableError:
            steps = [Step(view, None, MADE_BEFORE)]
        for step in steps:
            if step.source is not None and memory.known(step.source) is not None:
                buffer.put(memory.traced(copied(step.target, step.source), step.source.storage))
            else:
                buffer.put([step.target.as_move().opaque(step.note or MADE_BEFORE)])
