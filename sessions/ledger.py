"""What the loader calls of a session wrote, gathered once for each state of the session and shared by all views."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from sessions.session import Session

Key = tuple[int, str]
LEVELS_WITH_WRITES = frozenset({"ledger", "values", "tensors"})


class Write(NamedTuple):  # hundreds of thousands are made at once: half the cost of a frozen dataclass
    """One write into a parameter. `position` is the loader call's, `at` the write's own (-1 call: outside any).

    `start`/`length` box the parameter (empty: not a plain box), `source_start`/`source_length` the checkpoint tensor.
    """

    position: int
    at: int
    checkpoint_name: str
    shard_id: str
    expert_id: int
    start: tuple[int, ...]
    length: tuple[int, ...]
    elements: int
    source_start: tuple[int, ...]
    source_length: tuple[int, ...]
    source: str
    operation: str


class Call(NamedTuple):
    """One loader call. `is_over` is False while it runs; `end_ns` is then -1."""

    position: int
    checkpoint_name: str
    shard_id: str
    expert_id: int
    loader: str
    where: str
    outcome: str
    end_ns: int


@dataclass
class Ledger:
    """Calls and writes by (rank, parameter) in order; `finals` is the time at which each rank's load had ended well."""

    has_writes: bool = False
    calls: dict[Key, list[Call]] = field(default_factory=lambda: defaultdict(list))
    writes: dict[Key, list[Write]] = field(default_factory=lambda: defaultdict(list))
    finals: dict[int, int] = field(default_factory=dict)
    call_at: dict[int, tuple[Key, Call]] = field(default_factory=dict)
    places: dict[Key, array[int]] = field(default_factory=dict)

    def writes_until(self, key: Key, until: int | None) -> list[Write]:
        """The writes into a parameter up to and including the event at position `until`."""
        found = self.writes.get(key, [])
        if until is None or not found:
            return found
        if key not in self.places:
            self.places[key] = array("q", (w.at for w in found))
        return found[: bisect_right(self.places[key], until)]


def ledger(session: Session) -> Ledger:
    """The ledger of the session as it is now."""
    return session.kept("ledger", lambda: _read(session))


_CALL = ("parameter", "checkpoint_name", "shard_id", "expert_id", "loader", "where", "outcome")
_WRITE = ("parameter", "start", "length", "elements", "source_start", "source_length", "source", "operation")


def _read(session: Session) -> Ledger:
    out = Ledger(has_writes=_has_writes(session))
    for position, _, t_ns, dur, _, rank, *facts in session.rows("loader.called", _CALL):
        parameter, name, shard, expert, loader, where, outcome = facts
        end_ns = t_ns + dur if dur is not None else -1
        expert = -1 if expert is None else expert
        call = Call(position, name or "", shard or "", expert, loader or "", where or "", outcome or "", end_ns)
        out.calls[rank, parameter or ""].append(call)
        out.call_at[position] = (rank, parameter or ""), call
    for position, stream, _, _, parent, rank, *facts in session.rows("weight.written", _WRITE):
        parameter, start, length, n, source_start, source_length, source, operation = facts
        at = session.position(stream, parent) if parent else -1
        call = out.call_at[at][1] if at in out.call_at else Call(-1, "", "", -1, "", "", "", -1)
        box = (start or (), length or (), n or 0, source_start or (), source_length or ())
        told = (call.position, position, call.checkpoint_name, call.shard_id, call.expert_id)
        out.writes[rank, parameter or ""].append(Write(*told, *box, source or "", operation or ""))
    out.finals = _finals(session)
    return out


def _has_writes(session: Session) -> bool:
    levels = {session.manifest.level} | {row[6] for row in session.rows("process.started", ("level",))}
    return session.count("weight.written") > 0 or bool(levels & LEVELS_WITH_WRITES)


def _finals(session: Session) -> dict[int, int]:
    failed = {row[5] for row in session.rows("stage.failed", ())}
    out: dict[int, int] = {}
    for _, _, t_ns, dur, _, rank in session.rows("weights.mapped", ()):
        if dur is not None and rank not in failed:
            out[rank] = max(out.get(rank, 0), t_ns + dur)
    for _, _, t_ns, _, _, rank in session.rows("model.loaded", ()):
        out.setdefault(rank, t_ns)
    return out
