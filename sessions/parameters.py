"""Every parameter of the model as built: which calls filled it, how completely, as of any point of the session."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from sessions import coverage as boxes
from sessions import maps
from sessions.coverage import Grid, elements
from sessions.ledger import Call, Ledger, Suspicion, Write, ledger, ledger_of
from sessions.session import Session


@dataclass(frozen=True)
class Coverage:
    """How much of a parameter was written. Counts are None when the session does not hold them (level `calls`).

    `is_final`: the rank's load has ended, so what is not written never will be.
    """

    elements: int
    never_written: int | None
    written_twice: int | None
    is_known: bool
    is_final: bool


@dataclass(frozen=True)
class ParameterView:
    """One parameter of one rank; shape and bytes are this rank's. Coverage is computed when it is asked for.

    `was_seen_made` is false where the process was entered after its start and the parameter may be older than that:
    what was filled before is not known then, and no writes here mean nothing.
    """

    name: str
    rank: int
    parameter_class: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    loader: str
    where: str
    position: int
    until: int | None = field(repr=False)
    now_ns: int | None = field(repr=False)
    ledger: Ledger = field(repr=False, compare=False)
    was_seen_made: bool = field(default=True, repr=False)

    @property
    def module(self) -> str:
        """The dotted name of the module that owns it."""
        return self.name.rpartition(".")[0]

    @property
    def elements(self) -> int:
        """The number of elements on this rank."""
        return elements(self.shape)

    @cached_property
    def _filled(self) -> tuple[int, str]:
        return self.ledger.owner((self.rank, self.name), self.until)

    @property
    def tied_to(self) -> str:
        """The parameter whose tensor this one is too, "" for none: what filled that one filled this one."""
        return self._filled[1] if self._filled[1] != self.name else ""

    @cached_property
    def loader_calls(self) -> tuple[Call, ...]:
        """The loader calls so far, in order."""
        found = self.ledger.calls.get(self._filled, [])
        return tuple(c for c in found if self.until is None or c.position <= self.until)

    @property
    def calls(self) -> tuple[int, ...]:
        """The positions of the loader calls so far."""
        return tuple(call.position for call in self.loader_calls)

    @cached_property
    def writes(self) -> tuple[Write, ...]:
        """The writes so far, in order; empty at level `calls`."""
        return tuple(self.ledger.writes_until(self._filled, self.until))

    @cached_property
    def suspicions(self) -> tuple[Suspicion, ...]:
        """Changes of its memory so far that the ledger could not follow; with any, its writes are not to be trusted."""
        found = self.ledger.suspicions.get(self._filled, ())
        return tuple(one for one in found if self.until is None or one.at <= self.until)

    @cached_property
    def is_final(self) -> bool:
        """True once this rank's load has ended without failing, and began in this session."""
        if not self.was_seen_made:
            return False
        end = self.ledger.finals.get(self.rank)
        return end is not None and (self.now_ns is None or end <= self.now_ns)

    @property
    def is_known(self) -> bool:
        """True when what was written is recorded: nothing was called yet, or the place of every write is known."""
        return not self.unknown_because

    @cached_property
    def unknown_because(self) -> str:
        """Why coverage is not known, "" when it is."""
        if not self.was_seen_made and (not self.ledger.has_writes or self._written is None or self._written.never):
            return "it may have been filled before Loadscope was attached"
        if not self.ledger.has_writes:
            return "no writes are recorded at this level" if self.loader_calls else ""
        if self.suspicions:
            one = self.suspicions[0]
            by = f" by {one.operation}" if one.operation else ""
            return f"not to be trusted: {one.reason or 'memory changed unseen'}{by}"
        lost = next((w for w in self.writes if w.elements and not self.is_placed(w)), None)
        return f"{lost.operation or 'a write'} wrote to elements that could not be told" if lost is not None else ""

    def is_placed(self, write: Write) -> bool:
        """True when it is known which elements a write filled."""
        return bool(write.runs) or len(write.start) == len(self.shape) == len(write.length)

    def boxes_of(self, write: Write) -> list[boxes.Box]:
        """The elements that a write filled, a scalar counting as shape (1,); [] where they are not known."""
        if write.runs:
            stretches = zip(write.runs[::2], write.runs[1::2], strict=False)
            return [box for begin, n in stretches for box in maps.boxes_of_range(begin, begin + n, self.shape)]
        return [(write.start or (0,), write.length or (1,))] if self.is_placed(write) and write.elements else []

    @cached_property
    def grid(self) -> Grid | None:
        """The boxes written, None when they are not known."""
        return self._written if self.is_known else None

    @cached_property
    def _written(self) -> Grid | None:
        """The boxes that are known to have been written, None where they are too many pieces to count."""
        return boxes.grid(self.shape, [box for write in self.writes for box in self.boxes_of(write)])

    @cached_property
    def coverage(self) -> Coverage:
        """How completely it was written so far."""
        grid = self.grid
        if grid is None:
            return Coverage(self.elements, None, None, is_known=False, is_final=self.is_final)
        return Coverage(self.elements, grid.never, grid.twice, is_known=True, is_final=self.is_final)

    def cells(self, width: int) -> str:
        """The coverage line in memory order, `width` characters, each the worst of its elements.

        "0" never, "2" twice or more, "?" not recorded, "." not there yet, "1" once.
        """
        if width not in self._lines:
            grid = self.grid
            self._lines[width] = "?" * width if grid is None else boxes.line(grid, width, is_final=self.is_final)
        return self._lines[width]

    @cached_property
    def _lines(self) -> dict[int, str]:
        """Lines already drawn, by width: going through time asks for the same ones again and again."""
        return {}


def parameters(session: Session, until: int | None = None) -> tuple[ParameterView, ...]:
    """All parameters in order of registration, as of the event at position `until` (None: all of the session)."""
    known = ledger(session)
    now_ns = session.event(until).t_ns if until is not None and 0 <= until < len(session) else None
    rows = session.kept("parameter rows", lambda: sorted(_registered(session, known)))
    made = _made(session)
    return tuple(
        ParameterView(
            r.name, r.rank, r.parameter_class, r.dtype, r.shape, r.size_bytes, r.loader, r.where, r.position,
            until, now_ns, known, made is None or (r.rank, r.name) in made,
        )
        for r in rows
        if until is None or r.position <= until
    )  # fmt: skip


def parameter(session: Session, name: str) -> tuple[ParameterView, ...]:
    """One parameter on every rank, as of the end: without reading what was recorded of the others. () for none."""
    known = ledger_of(session, name)
    rows = sorted(_registered(session, known, name))
    made = _made(session)
    return tuple(
        ParameterView(
            r.name, r.rank, r.parameter_class, r.dtype, r.shape, r.size_bytes, r.loader, r.where, r.position,
            None, None, known, made is None or (r.rank, r.name) in made,
        )
        for r in rows
    )  # fmt: skip


def _made(session: Session) -> frozenset[tuple[int, str]] | None:
    """Parameters of modules that were made in this session, None where that is all of them."""
    if not session.manifest.attached_at:
        return None
    return session.kept("parameters made", lambda: _made_since(session))


def _made_since(session: Session) -> frozenset[tuple[int, str]]:
    modules = {(row[5], row[6] or "") for row in session.rows("weights.created", ("module",))}
    found = set()
    for row in session.rows("parameter.registered", ("parameter", "built_as")):
        rank, name, built_as = row[5:8]
        if (rank, built_as or (name or "").rpartition(".")[0]) in modules:
            found.add((rank, name or ""))
    return frozenset(found)


class _Registered(NamedTuple):
    position: int
    rank: int
    name: str
    parameter_class: str
    dtype: str
    shape: tuple[int, ...]
    loader: str
    where: str
    size_bytes: int


_FIELDS = ("parameter", "parameter_class", "dtype", "shape", "loader", "where", "size_bytes")
_CALL_FIELDS = ("parameter", "parameter_class", "parameter_dtype", "parameter_shape", "loader", "where")


def _registered(session: Session, known: Ledger, only: str | None = None) -> list[_Registered]:
    where = None if only is None else ("parameter", only)
    rows = list(session.rows("parameter.registered", _FIELDS, where=where))
    seen = {(row[5], row[6]) for row in rows}
    if any(key not in seen and only in {None, key[1]} for key in known.calls):
        # made late, or by an engine without that tracepoint: the loader's calls say what they are
        rows += [(*row, 0) for row in session.rows("loader.called", _CALL_FIELDS, where=where)]
    first: dict[tuple[int, str], _Registered] = {}
    for position, _, _, _, _, rank, name, cls, dtype, shape, loader, where, size in rows:
        texts = (name or "", cls or "", dtype or "")
        facts = _Registered(position, rank, *texts, shape or (), loader or "", where or "", size or 0)
        before = first.setdefault((rank, facts.name), facts)
        if not before.shape and facts.shape:  # its shape came with what it was filled from
            first[rank, facts.name] = facts._replace(position=before.position, parameter_class=before.parameter_class)
    return [facts for facts in first.values() if facts.name]
