"""Remembers for every memory that a load touches where its bytes came from, whatever becomes of the tensors on it."""

from __future__ import annotations

import sys
import threading
from bisect import bisect_right, insort
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

from inspectors.probe.moves import MAX_BOXES, Move, Origin, Sizes, TooFineError, meet, simple, span
from inspectors.probe.views import View, copied, identity_of, row_major, view_of

MAX_PIECES = 4096
MAX_PIECES_OF_A_PARAMETER = 64
MADE_BEFORE = "made before the call"
UNKNOWN, UNINITIALIZED, CONSTANT = "unknown", "uninitialized", "constant"


class _Pin:
    """Keeps a storage's identity from being given to another one, not the storage itself nor its bytes."""

    __slots__ = ("_identity", "_torch")

    def __init__(self, tensor: Any) -> None:
        self._torch = sys.modules["torch"].UntypedStorage
        self._identity = tensor.untyped_storage()._weak_ref()  # noqa: SLF001 - as torch.multiprocessing does

    @property
    def is_gone(self) -> bool:
        """Whether nothing uses the storage any more."""
        return bool(self._torch._expired(self._identity))  # noqa: SLF001

    def __del__(self) -> None:
        if getattr(self, "_identity", None) and not sys.is_finalizing():
            self._torch._free_weak_ref(self._identity)  # noqa: SLF001


class Root:
    """A tensor whose bytes are where things come from; `number` is the same for all that are laid out alike."""

    __slots__ = ("_content", "begin", "end", "number", "origin", "view")

    def __init__(self, number: int, view: View, edges: tuple[int, int], origin: Origin) -> None:
        self.number, self.view, self.origin = number, view, origin
        self.begin, self.end = edges
        self._content: Move | None = None

    @property
    def content(self) -> Move:
        """The tensor's bytes, as a map onto themselves: row-major from 0."""
        if self._content is None:
            view, size = self.view, self.end - self.begin
            if view.is_row_major:
                self._content = Move((size,), self.begin, (1,), 1, self.origin, 0, (1,), 1)
            else:
                strides = row_major(view.sizes, view.item)
                self._content = simple(view.as_move()._replace(origin=self.origin, at=0, at_strides=strides))
        return self._content

    def take(self, queries: list[Move], found: list[Move]) -> list[Move]:
        """Add what queries read of the root to `found`; gives the rest of them."""
        rest: list[Move] = []
        for query in queries:
            low, high = span(query.at, query.sizes, query.at_strides, query.at_item)
            if self.content.to_strides == (1,) and self.begin <= low and high <= self.end:
                found.append(query._replace(origin=self.origin, at=query.at - self.begin))
            else:
                rest += _taken([query], self.content, found)
        return rest


class Recent(NamedTuple):
    """A copy of a part of `root` into a storage, by what was read of both tensors: offset in bytes, sizes, strides."""

    root: Root
    target: tuple[int, Any, Any, Any]
    source: tuple[int, Any, Any, Any]

    def as_move(self) -> Move:
        """The copy, as a question to the root's memory."""
        return copied(_view(self.target), _view(self.source))


def _view(read: tuple[int, Any, Any, Any]) -> View:
    offset, sizes, strides, dtype = read
    item = dtype.itemsize
    return View(0, offset, tuple(sizes), tuple(n * item for n in strides), item, str(dtype).removeprefix("torch."))


class Buffer:
    """One storage: the roots that lie in it, and what was moved into it since, newest last.

    `rest` says what the other bytes are, `names` which origins anything in it was made of, `chain` by which operators.
    """

    __slots__ = ("chain", "last", "limit", "names", "operation", "pieces", "pin", "recent", "rest", "roots", "sequence")

    def __init__(self, pin: _Pin, rest: str) -> None:
        self.pin, self.rest, self.limit = pin, rest, MAX_PIECES
        self.pieces: list[Move] = []
        self.recent: list[Recent] = []
        self.roots: list[Root] = []
        self.last: Root | None = None
        self.names: tuple[str, ...] = ()
        self.chain: tuple[str, ...] = ()
        self.operation, self.sequence = "", 0

    def put(self, moves: Iterable[Move]) -> None:
        """Lay moves over what is there; the oldest are forgotten when there are too many."""
        self._settle()
        self.pieces.extend(simple(move) for move in moves)
        if len(self.pieces) > self.limit:
            del self.pieces[: len(self.pieces) - self.limit // 2]
            self.rest, self.roots, self.last = UNKNOWN, [], None

    def put_copy(self, recent: Recent) -> None:
        """Lay a plain copy of a part of a root over what is there; what that means is worked out when it is read."""
        self.recent.append(recent)
        if len(self.recent) > MAX_PIECES_OF_A_PARAMETER:
            self.pieces, self.rest = [], UNKNOWN
            del self.recent[: MAX_PIECES_OF_A_PARAMETER // 2]

    def _settle(self) -> None:
        recent, self.recent = self.recent, []
        for one in recent:
            found: list[Move] = []
            try:
                one.root.take([one.as_move()], found)
            except TooFineError:
                found = [one.as_move().opaque(UNKNOWN)]
            self.pieces.extend(simple(move) for move in found)
            self.names = tuple(dict.fromkeys((*self.names, one.root.origin.name)))

    def root_of(self, view: View) -> Root | None:
        """The root in which all of a view lies."""
        low, high = span(view.offset, view.sizes, view.strides, view.item)
        root = next(self._roots_between(low, high), None)
        return root if root is not None and root.begin <= low and high <= root.end else None

    def _roots_between(self, low: int, high: int) -> Iterator[Root]:
        place = max(0, bisect_right(self.roots, low, key=_begin) - 1)
        for root in self.roots[place:]:
            if root.begin >= high:
                return
            if root.end > low:
                yield root

    def traced(self, query: Move) -> list[Move]:
        """What a query reads of this storage (`at` is an address in it), traced to origins."""
        self._settle()
        try:
            return self._traced(query)
        except TooFineError:
            return [query.opaque(UNKNOWN)]

    def _traced(self, query: Move) -> list[Move]:
        found: list[Move] = []
        left = [query]
        for piece in reversed(self.pieces):
            left = _taken(left, piece, found)
            if not left:
                return found
        for one in left if self.roots else ():
            low, high = span(one.at, one.sizes, one.at_strides, one.at_item)
            rest = [one]
            for root in self._roots_between(low, high):
                rest = root.take(rest, found)
            found += (part.opaque(self.rest) for part in rest)
        if not self.roots:
            found += (part.opaque(self.rest) for part in left)
        return found


def _taken(left: list[Move], piece: Move, found: list[Move]) -> list[Move]:
    remaining: list[Move] = []
    for one in left:
        hits, rest = meet(one, piece)
        found += hits
        remaining += rest
    if len(found) + len(remaining) > 4 * MAX_BOXES:
        raise TooFineError
    return remaining


class Held(NamedTuple):
    """A parameter and where its elements lie; `number` is the same for all parameters laid out alike."""

    name: str
    view: View
    number: int


class Memory:
    """All storages of a load by identity. One for all threads of a process: ranks share the files they read."""

    def __init__(self) -> None:
        self.buffers: dict[int, Buffer] = {}
        self.parameters: dict[int, list[Held]] = {}
        self.lock = threading.RLock()
        self._places: dict[int, tuple[int, str]] = {}
        self._layouts: dict[tuple[Any, ...], int] = {}
        self._sequence = 0
        self._cleared_at = 512

    def known(self, view: View) -> Buffer | None:
        """The buffer of a view's storage."""
        return self.buffers.get(view.storage)

    def buffer(self, tensor: Any, view: View, rest: str = UNKNOWN) -> Buffer:
        """The buffer of a tensor's storage, made for one that is seen for the first time."""
        found = self.buffers.get(view.storage)
        if found is None:
            if len(self.buffers) > self._cleared_at:
                self.clear()
            found = self.buffers[view.storage] = Buffer(_Pin(tensor), rest)
        return found

    def clear(self) -> None:
        """Forget what nothing uses any more."""
        with self.lock:
            self.forget({identity for identity, buffer in list(self.buffers.items()) if buffer.pin.is_gone})
            self._cleared_at = 2 * len(self.buffers) + 512

    def forget(self, storages: Collection[int]) -> None:
        """Nobody will ask again where these storages' bytes came from: a large model's pieces weigh a hundred MB."""
        with self.lock:
            for storage in storages:
                self.buffers.pop(storage, None)
                self.parameters.pop(storage, None)
            self._places = {owner: place for owner, place in self._places.items() if place[0] not in storages}

    def touch(self, buffer: Buffer) -> None:
        """Note that a buffer's bytes changed: `sequence` grows over all buffers."""
        self._sequence += 1
        buffer.sequence = self._sequence

    def place(self, owner: int, name: str, tensor: Any) -> None:
        """The parameter `name` has its elements in this tensor's memory, and nowhere else; `owner` tells its rank's."""
        with self.lock:
            was = self._places.pop(owner, None)
            if was is not None:
                others = [held for held in self.parameters.pop(was[0], ()) if held.name != was[1]]
                if others:
                    self.parameters[was[0]] = others
            view = view_of(tensor)
            if view is None or not _count(view.sizes):
                return
            self.buffer(tensor, view).limit = MAX_PIECES_OF_A_PARAMETER
            number = self.number_of(view.sizes, view.strides, view.item, view.dtype)
            self._places[owner] = view.storage, name
            self.parameters[view.storage] = [*self.parameters.get(view.storage, ()), Held(name, view, number)]

    def holding(self, view: View) -> Held | None:
        """The parameter in whose memory a view begins."""
        held = self.parameters.get(view.storage, ())
        for one in held:
            begin, end = span(one.view.offset, one.view.sizes, one.view.strides, one.view.item)
            if len(held) == 1 or begin <= view.offset < end:
                return one
        return None

    def read(self, name: str, tensor: Any, *, is_exact: bool = True) -> Root | None:
        """A tensor that things come from was read, under this name."""
        view = view_of(tensor)
        if view is None:
            return None
        if view.sizes and not min(view.sizes):
            return None
        buffer = self.buffers.get(view.storage) or self.buffer(tensor, view)
        edges = span(view.offset, view.sizes, view.strides, view.item)
        number = self.number_of(view.sizes, view.strides, view.dtype, is_exact)
        root = Root(number, view, edges, Origin(name, view.sizes, view.item, view.dtype, is_exact))
        with self.lock:
            _insert(buffer, root)
        return root

    def root_read_last(self, tensor: Any) -> Root | None:
        """The root that a tensor is, if it is the one read last in its storage and nothing was written there."""
        buffer = self.buffers.get(identity_of(tensor))
        root = buffer.last if buffer is not None and not buffer.pieces else None
        if root is None or tensor.storage_offset() * tensor.element_size() != root.begin:
            return None
        return root if tensor.size() == root.view.sizes and tensor.element_size() == root.view.item else None

    def made(self, tensor: Any, view: View, operation: str) -> Buffer:
        """An operator gave new memory, or memory filled anew: nothing that was known of it holds any more."""
        buffer = self.buffer(tensor, view, UNINITIALIZED)
        buffer.pieces, buffer.recent, buffer.roots, buffer.rest = [], [], [], UNINITIALIZED
        buffer.last = None
        buffer.operation, buffer.names, buffer.chain = operation, (), ()
        self.touch(buffer)
        return buffer

    def number_of(self, *layout: Any) -> int:
        """A small number for what is equal."""
        return self._layouts.setdefault(layout, len(self._layouts))

    def traced(self, query: Move, storage: int) -> list[Move]:
        """What a query reads of a storage, traced to origins."""
        buffer = self.buffers.get(storage)
        return buffer.traced(query) if buffer is not None else [query.opaque(UNKNOWN)]

    def names_in(self, view: View) -> tuple[str, ...]:
        """The origins that anything in a view's storage was made of."""
        buffer = self.buffers.get(view.storage)
        if buffer is None:
            return ()
        root = buffer.root_of(view) if buffer.roots else None
        return tuple(dict.fromkeys((*buffer.names, *((root.origin.name,) if root is not None else ()))))


def _count(sizes: Sizes) -> int:
    count = 1
    for size in sizes:
        count *= size
    return count


def _insert(buffer: Buffer, root: Root) -> None:
    """Put a root in its place; memory that is read into again holds nothing of what it held."""
    buffer.last = root
    if buffer.roots and buffer.roots[-1].end > root.begin:
        place = max(0, bisect_right(buffer.roots, root.begin, key=_begin) - 1)
        if any(one.end > root.begin and one.begin < root.end for one in buffer.roots[place : place + 2]):
            buffer.roots = [one for one in buffer.roots if one.end <= root.begin or one.begin >= root.end]
        insort(buffer.roots, root, key=_begin)
    else:
        buffer.roots.append(root)
    if buffer.pieces or buffer.recent:
        buffer.put([root.content])


def _begin(root: Root) -> int:
    return root.begin
