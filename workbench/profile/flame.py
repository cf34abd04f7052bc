"""The time of a session as nested blocks: phase, layer, module, then parameter or kernel; each moment in one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sessions.launches import layer_of
from sessions.session import Session
from sessions.spans import Span
from sessions.timing import BETWEEN, WAITING, chosen_pieces, timing

PHASES = {
    "checkpoint.open": "open",
    "weights.create": "create",
    "tensor.read": "load",
    "weight.map": "load",
    "weight.load": "load",
    "weights.process": "process",
    "model.ready": "ready",
    "forward.run": "forward",
    "kernel.launch": "forward",
}
"""The first block of each stage; their words are those under the spine."""


@dataclass
class Block:
    """A box: its own time and that of the boxes inside it, in the order in which they first ran."""

    name: str
    own_ns: float = 0.0
    stage: str = ""
    calls: int = 0
    inner: dict[str, Block] = field(default_factory=dict)

    @property
    def ns(self) -> float:
        """All of it."""
        return self.own_ns + sum(block.ns for block in self.inner.values())

    @property
    def depth(self) -> int:
        """How many boxes lie below each other, this one included."""
        return 1 + max((block.depth for block in self.inner.values()), default=0)

    def walk(self, level: int = 0, start_ns: float = 0.0) -> Iterator[tuple[int, float, Block]]:
        """The box and all inside, outer ones first: (level, where it begins, box)."""
        yield level, start_ns, self
        at = start_ns
        for block in self.inner.values():
            yield from block.walk(level + 1, at)
            at += block.ns


def blocks(session: Session, rank: int | None = None) -> Block:
    """The whole as one block; its time is the total of `timing`."""
    return session.kept(f"blocks {rank}", lambda: _blocks(session, rank))


def _blocks(session: Session, rank: int | None) -> Block:
    parameter_of = _parameters_by_tensor(session)
    whole = Block(session.manifest.name or session.folder.name)
    seen: set[int] = set()
    for piece in chosen_pieces(session, rank):
        block = whole
        for name in _path(piece.span, parameter_of):
            block = block.inner.setdefault(name, Block(name, stage=piece.span.stage))
        block.own_ns += piece.ns
        if id(piece.span) not in seen:
            seen.add(id(piece.span))
            block.calls += 1
    found = timing(session, rank)
    _take_waiting(whole, found.stage(WAITING).self_ns)
    for name in (WAITING, BETWEEN):
        if found.stage(name).self_ns > 0:
            whole.inner[name] = Block(name, found.stage(name).self_ns, name)
    return whole


def _take_waiting(whole: Block, waiting_ns: float) -> None:
    """A rank's waiting is a block of its own, so it leaves those that hold others, in proportion to their time."""
    holders = [block for _, _, block in whole.walk() if block.stage in {"weight.map", "forward.run"} and block.own_ns]
    own = sum(block.own_ns for block in holders)
    for block in holders:
        block.own_ns -= waiting_ns * block.own_ns / own


def _parameters_by_tensor(session: Session) -> dict[str, str]:
    rows = session.rows("loader.called", ("checkpoint_name", "parameter"))
    return {str(row[6]): str(row[7]) for row in rows if row[6] and row[7]}


def _path(span: Span, parameter_of: dict[str, str]) -> tuple[str, ...]:
    """The names of the blocks that a span's own time lies in, from the phase on."""
    phase, facts = PHASES[span.stage], span.facts
    if span.kind == "loader.called":
        return (phase, *_parted(str(facts[0] or "(no name)")), "copy")
    if span.kind == "tensor.read":
        name = str(facts[0] or "(no name)")
        return (phase, *_parted(parameter_of.get(name, name)), "read")
    if span.kind == "weights.mapped":
        return phase, "load_weights itself"
    if span.kind in {"weights.created", "weights.processed"}:
        return (phase, *_parted(str(facts[0] or "(no name)")))
    if span.kind == "forward.ran":
        return phase, str(facts[0] or "pass"), "between launches"
    if span.kind == "kernel.launched":
        return (phase, _phase(span), *_parted(str(facts[1] or "(in no module)")), *_kernels(span))
    return (phase,)


def _kernels(span: Span) -> tuple[str, ...]:
    """The launches around a launch, and itself."""
    names: list[str] = []
    at: Span | None = span
    while at is not None and at.kind == span.kind:
        names.append(str(at.facts[0] or "(no name)"))
        at = at.parent
    return tuple(reversed(names))


def _phase(span: Span) -> str:
    at: Span | None = span
    while at is not None and at.kind != "forward.ran":
        at = at.parent
    return str(at.facts[0] or "pass") if at is not None else "outside a pass"


def _parted(name: str) -> tuple[str, ...]:
    """`model.layers.3.mlp.gate.weight` → `model.layers.3`, `mlp.gate.weight`."""
    layer = layer_of(name)
    rest = name[len(layer) + 1 :] if layer else name
    return (layer, rest) if layer and rest else (name,)
