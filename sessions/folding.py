"""Folds events into timeline rows as they come: alike events of all ranks are one row, layers and spans nest."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from operator import itemgetter
from typing import Any

from sessions.loaded import tp_of
from sessions.session import Session
from sessions.stream import Stream

CHUNK = 2_000
MOST_CHUNK = 16_000
LAYER = -2
NO_ROW = -1
_LAYER_NAME = re.compile(r"^(.*?\blayers?\.\d+)(?:\.|$)")

KEYS: dict[str, tuple[str, ...]] = {
    "stage.failed": ("error", "module", "parameter"),
    "skip.decided": ("module",),
    "method.selected": ("module",),
    "kernel.chosen": ("module", "op"),
    "weights.created": ("module",),
    "weights.mapped": ("model_class",),
    "loader.called": ("parameter", "checkpoint_name", "shard_id", "expert_id"),
    "shard.split": ("parameter", "checkpoint_name", "dim", "operation"),
    "weight.written": ("parameter", "operation"),
    "value.summarized": ("parameter",),
    "weights.processed": ("module",),
    "forward.ran": ("model_class", "phase"),
    "kernel.launched": ("module", "name"),
    "tensor.read": ("checkpoint_name",),
}
"""What makes two events of different ranks alike; the first is what names the layer."""

COUNTED = frozenset({"tensor.listed", "parameter.registered"})
"""Kinds of which neighbours are one row with a count."""

HIDDEN = frozenset(
    {"weight.written", "value.summarized", "tensor.read", "tensor.kept", "memory.sampled", "stage.timed"}
)
"""Kinds shown in the row of the call around them, or of what came before."""

_IN_LAYERS = frozenset(KEYS) - {"weights.mapped", "forward.ran", "stage.failed"}


class Folded:
    """The row index: arrays over rows, and for each event the row that shows it. Rows are only ever added."""

    def __init__(self, session: Session, hidden: frozenset[str] = HIDDEN) -> None:
        self._session, self._hidden = session, hidden
        self.ranks = tp_of(session)
        # a command of the person's own: its ranks show themselves one by one
        self._is_tp_known = bool(session.manifest.engine)
        self.kinds: list[str] = []
        self._kind_ids: dict[str, int] = {}
        self.kind_of = array("h")
        self.depth = array("B")
        self.parent = array("i")
        self.first = array("I")
        self.count = array("I")
        self.total_ns = array("q")
        self.lanes = array("i")
        self.row_at = array("i")
        self.names: dict[int, str] = {}
        self.open_at: dict[int, int] = {}
        self.failed: set[int] = set()
        self._waiting: dict[tuple[Any, ...], list[int]] = {}
        self._group: dict[int, tuple[str, int]] = {}
        self._counted: dict[tuple[Any, ...], int] = {}

    def __len__(self) -> int:
        return len(self.first)

    @property
    def done(self) -> int:
        """How many events are folded."""
        return len(self.row_at)

    def advance(self) -> bool:
        """Fold the next events; False when all are folded."""
        start = self.done
        stop = min(start + (CHUNK if start < CHUNK else MOST_CHUNK), len(self._session))
        if start >= stop:
            return False
        for position, stream, envelope, key in self._events(start, stop):
            while self.done < position:  # rows of a damaged stream that are gone
                self.row_at.append(NO_ROW)
            self.row_at.append(self._place(position, stream, envelope, key))
        while self.done < stop:
            self.row_at.append(NO_ROW)
        return True

    def _events(self, start: int, stop: int) -> Iterator[tuple[int, int, tuple[Any, ...], tuple[Any, ...]]]:
        session = self._session
        firsts, lasts = session.seqs_before(start), session.seqs_before(stop)
        out = []
        is_merged = len(session.streams) > 1
        for stream, first, last in zip(session.streams, firsts, lasts, strict=True):
            if last <= first:
                continue
            keys = _keys(stream, first + 1, last)
            for seq, *envelope in stream.envelopes(first + 1, last):
                position = session.position(stream.number, seq) if is_merged else seq - 1
                out.append((position, stream.number, tuple(envelope), keys.get(seq, ())))
        if is_merged:
            out.sort(key=itemgetter(0))
        yield from out

    def _place(self, position: int, stream: int, envelope: tuple[Any, ...], key: tuple[Any, ...]) -> int:
        kind, parent_seq, rank, dur_ns = envelope
        around = self.row_of(self._session.position(stream, parent_seq)) if parent_seq else NO_ROW
        if kind in self._hidden:
            return around if around != NO_ROW or not self.row_at else self.row_at[-1]
        if kind == "stage.failed" and key:
            self._mark_failed(stream, position, key)
        name = str(key[0] or "") if key and kind in _IN_LAYERS else ""
        if kind in COUNTED:
            row = self._counting(position, kind, around, rank)
        elif rank >= 0:
            row = self._folding(position, (kind, around, *key), around, rank, name)
        else:
            row = self._new_row(position, kind, around, rank, name)
        if dur_ns is None:
            self.open_at[position] = row
        else:
            self._add_time(row, rank, dur_ns)
        return row

    def row_of(self, position: int) -> int:
        """The row of an event already folded, -1 for none."""
        return self.row_at[position] if 0 <= position < len(self.row_at) else NO_ROW

    def _counting(self, position: int, kind: str, around: int, rank: int) -> int:
        key = (kind, around)
        row = self._counted.get(key, NO_ROW)
        if row == NO_ROW or (rank < 0 and row != len(self) - 1):
            row = self._counted[key] = self._new_row(position, kind, around, rank, "")
            return row
        if rank < 0 or rank == self._lowest_rank(row):
            self.count[row] += 1
        self._set_lane(row, rank, position)
        return row

    def _lowest_rank(self, row: int) -> int:
        return next((r for r in range(self.ranks) if self.lanes[row * self.ranks + r] >= 0), 0)

    def _folding(self, position: int, key: tuple[Any, ...], around: int, rank: int, name: str) -> int:
        self._make_room(rank)
        waiting = self._waiting.get(key)
        for row in waiting or ():
            if self.lanes[row * self.ranks + rank] < 0:
                self._set_lane(row, rank, position)
                if waiting is not None and self._is_tp_known and self._is_full(row):
                    waiting.remove(row)
                    if not waiting:
                        del self._waiting[key]
                return row
        row = self._new_row(position, str(key[0]), around, rank, name)
        if self.ranks > 1 or not self._is_tp_known:
            self._waiting.setdefault(key, []).append(row)
        return row

    def _is_full(self, row: int) -> bool:
        begin = row * self.ranks
        return all(lane >= 0 for lane in self.lanes[begin : begin + self.ranks])

    def _make_room(self, rank: int) -> None:
        if rank < self.ranks or rank > 4096:
            return
        old, self.ranks = self.ranks, rank + 1
        wider = array("i")
        for row in range(len(self)):
            wider.extend(self.lanes[row * old : row * old + old])
            wider.extend([-1] * (self.ranks - old))
        self.lanes = wider

    def _new_row(self, position: int, kind: str, around: int, rank: int, name: str) -> int:
        found = _LAYER_NAME.match(name)
        parent = self._layer(position, found.group(1), around) if found else around
        if not found and kind in _IN_LAYERS:
            self._group.pop(around, None)
        return self._append(position, self._kind_id(kind), parent, rank)

    def _layer(self, position: int, layer: str, around: int) -> int:
        if self._is_in_layer(around):
            return around
        current = self._group.get(around)
        if current is not None and current[0] == layer:
            return current[1]
        row = self._append(position, LAYER, around, -1)
        self.names[row] = layer
        self._group[around] = (layer, row)
        return row

    def _is_in_layer(self, row: int) -> bool:
        while row >= 0:
            if self.kind_of[row] == LAYER:
                return True
            row = self.parent[row]
        return False

    def _append(self, position: int, kind: int, parent: int, rank: int) -> int:
        row = len(self)
        self.kind_of.append(kind)
        self.depth.append(min(self.depth[parent] + 1, 250) if parent >= 0 else 0)
        self.parent.append(parent)
        self.first.append(position)
        self.count.append(0 if kind == LAYER else 1)
        self.total_ns.append(0)
        self.lanes.extend([-1] * self.ranks)
        self._set_lane(row, rank, position)
        if parent >= 0 and self.kind_of[parent] == LAYER:
            self.count[parent] += 1
        return row

    def _set_lane(self, row: int, rank: int, position: int) -> None:
        if not 0 <= rank < self.ranks:
            return
        if self.lanes[row * self.ranks + rank] < 0:
            self.lanes[row * self.ranks + rank] = position
        parent = self.parent[row]
        if parent >= 0 and self.kind_of[parent] == LAYER:
            self._set_lane(parent, rank, position)

    def _add_time(self, row: int, rank: int, dur_ns: int) -> None:
        parent = self.parent[row]
        if parent >= 0 and self.kind_of[parent] == LAYER and (rank < 0 or rank == self._lowest_rank(row)):
            self.total_ns[parent] += dur_ns

    def _mark_failed(self, stream: int, position: int, key: tuple[Any, ...]) -> None:
        self.failed.add(position)
        call = key[-1] if isinstance(key[-1], int) else 0
        if call:
            self.failed.add(self._session.position(stream, call))

    def _kind_id(self, kind: str) -> int:
        known = self._kind_ids.get(kind)
        if known is None:
            known = self._kind_ids[kind] = len(self.kinds)
            self.kinds.append(kind)
        return known

    def refresh_open(self) -> bool:
        """Look whether open spans ended; True when one did."""
        ended = [event for event in self._session.events(list(self.open_at)) if event.dur_ns is not None]
        for event in ended:
            self._add_time(self.open_at.pop(event.position), event.rank, event.dur_ns or 0)
        return bool(ended)


def _keys(stream: Stream, first: int, last: int) -> dict[int, tuple[Any, ...]]:
    out: dict[int, tuple[Any, ...]] = {}
    for kind, fields in KEYS.items():
        asked = (*fields, "call") if kind == "stage.failed" else fields
        for row in stream.columns(kind, asked, first, last):
            out[row[0]] = row[5:]
    return out
