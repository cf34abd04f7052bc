"""What the loader calls of a session wrote, gathered once for each state of the session and shared by all views."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from sessions.session import Row, Session

Key = tuple[int, str]
LEVELS_WITH_WRITES = frozenset({"ledger", "values", "tensors"})


class Write(NamedTuple):  # hundreds of thousands are made at once: half the cost of a frozen dataclass
    """One write into a parameter. `position` is the loader call's, `at` the write's own (-1 call: outside any).

    `start`/`length` box the parameter (empty: not a plain box), `source_start`/`source_length` the checkpoint tensor;
    `source_offset`/`source_strides` (-1, (): not recorded) and `runs` are those of `WeightWritten`.
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
    source_offset: int = -1
    source_strides: tuple[int, ...] = ()
    runs: tuple[int, ...] = ()


class Suspicion(NamedTuple):
    """A change of a parameter's memory that the ledger could not follow. `position` is the call's, `at` its own."""

    position: int
    at: int
    operation: str
    reason: str


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
    """Calls and writes by (rank, parameter) in order; `finals` is the time at which each rank's load had ended well.

    `tied` has the parameters that are another one's tensor: that one, and the position at which it was told.
    """

    has_writes: bool = False
    calls: dict[Key, list[Call]] = field(default_factory=lambda: defaultdict(list))
    writes: dict[Key, list[Write]] = field(default_factory=lambda: defaultdict(list))
    suspicions: dict[Key, list[Suspicion]] = field(default_factory=dict)
    finals: dict[int, int] = field(default_factory=dict)
    call_at: dict[int, tuple[Key, Call]] = field(default_factory=dict)
    places: dict[Key, array[int]] = field(default_factory=dict)
    tied: dict[Key, tuple[str, int]] = field(default_factory=dict)

    def owner(self, key: Key, until: int | None) -> Key:
        """The parameter whose calls filled `key`: the one that it is tied to, unless it has calls of its own."""
        source, told_at = self.tied.get(key, ("", 0))
        is_told = bool(source) and (until is None or told_at <= until)
        return (key[0], source) if is_told and not self.calls.get(key) else key

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


def names_in(checkpoint_name: str) -> tuple[str, ...]:
    """The checkpoint tensors that a call or a write names: several where the engine made one tensor of them before."""
    return tuple(checkpoint_name.split(", "))


_CALL = ("parameter", "checkpoint_name", "shard_id", "expert_id", "loader", "where", "outcome")
_WRITE = (
    "parameter", "start", "length", "elements", "source_start", "source_length", "source", "operation",
    "checkpoint_name", "source_offset", "source_strides", "runs",
)  # fmt: skip
_NO_CALL = Call(-1, "", "", -1, "", "", "", -1)


def _read(session: Session) -> Ledger:
    out = Ledger(has_writes=has_writes(session), finals=_finals(session), tied=_tied(session))
    _take(out, session, None)
    return out


def _take(out: Ledger, session: Session, parameter: str | None) -> None:
    """Add calls, writes and suspicions: of one parameter, or of all."""
    where = None if parameter is None else ("parameter", parameter)
    for row in session.rows("loader.called", _CALL, where=where):
        key, call = _call(row)
        out.calls[key].append(call)
        out.call_at[call.position] = key, call
    for row in session.rows("weight.written", _WRITE, where=where):
        at = session.position(row[1], row[4]) if row[4] else -1
        out.writes[row[5], row[6] or ""].append(_write(row, out.call_at[at][1] if at in out.call_at else _NO_CALL))
    for key, suspicion in _suspicions(session, parameter):
        out.suspicions.setdefault(key, []).append(suspicion)


def _tied(session: Session) -> dict[Key, tuple[str, int]]:
    """Parameters that are another module's tensor; one of the same module became so in its post-processing."""
    rows = session.rows("model.loaded", ("tied", "tied_to"))
    told = ((row, name, to) for row in rows for name, to in zip(row[6] or (), row[7] or (), strict=False))
    return {(row[5], name): (to, row[0]) for row, name, to in told if name.rpartition(".")[0] != to.rpartition(".")[0]}


def _call(row: Row) -> tuple[Key, Call]:
    position, _, t_ns, dur, _, rank, parameter, name, shard, expert, loader, where, outcome = row
    end_ns = t_ns + dur if dur is not None else -1
    expert = -1 if expert is None else expert
    call = Call(position, name or "", shard or "", expert, loader or "", where or "", outcome or "", end_ns)
    return (rank, parameter or ""), call


def _write(row: Row, call: Call) -> Write:
    start, length, n, source_start, source_length, source, operation, name, offset, strides, runs = row[7:]
    return Write(
        call.position, row[0], name or call.checkpoint_name, call.shard_id, call.expert_id,
        start or (), length or (), n or 0, source_start or (), source_length or (), source or "", operation or "",
        -1 if offset is None else offset, strides or (), runs or (),
    )  # fmt: skip


def _suspicions(session: Session, parameter: str | None) -> Iterator[tuple[Key, Suspicion]]:
    where = None if parameter is None else ("parameter", parameter)
    for row in session.rows("write.suspected", ("parameter", "operation", "reason"), where=where):
        at = session.position(row[1], row[4]) if row[4] else -1
        yield (row[5], row[6] or ""), Suspicion(at, row[0], row[7] or "", row[8] or "")


def ledger_of(session: Session, parameter: str) -> Ledger:
    """The ledger of one parameter alone, on every rank: what a question about it needs, without reading all writes."""
    out = Ledger(has_writes=has_writes(session), finals=_finals(session), tied=_tied(session))
    for name in dict.fromkeys((parameter, *(to for key, (to, _) in out.tied.items() if key[1] == parameter))):
        _take(out, session, name)
    return out


def has_writes(session: Session) -> bool:
    """True when writes are recorded, or would be at the level of the session."""
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
