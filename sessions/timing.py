"""Where the time of a load and its forward passes went: by stage, by checkpoint file and by parameter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from sessions.checkpoint import header
from sessions.session import Session
from sessions.spans import STAGE_OF, Piece, Span, lanes, pieces, waited_ns

BETWEEN = "between stages"
WAITING = "waiting"
"""What a rank does in whose own stages nothing of it runs while another rank of its process works."""


@dataclass(frozen=True)
class StageCost:
    """One stage. `self_ns` is without what other stages took inside it; all rows together give the total.

    `bytes` were read or copied (0: a stage that moves none). `cpu_ns` and `read_bytes` are the process's while calls of
    the stage ran, stages inside them included; None where nobody counted.
    """

    stage: str
    calls: int
    self_ns: float
    bytes: int = 0
    cpu_ns: int | None = None
    read_bytes: int | None = None
    major_faults: int | None = None


@dataclass(frozen=True)
class FileCost:
    """One checkpoint file: the tensors read of it and their bytes as its header has them, reading and copying in ns."""

    file: str
    tensors: int
    bytes: int
    calls: int
    read_ns: float
    copy_ns: float

    @property
    def total_ns(self) -> float:
        """Reading and copying."""
        return self.read_ns + self.copy_ns


@dataclass(frozen=True)
class ParameterCost:
    """One parameter, all its ranks: bytes copied into it, and ns of reading, copying and post-processing.

    Reading a tensor is divided among the parameters that took it; a module's post-processing among its parameters, by
    their bytes.
    """

    parameter: str
    calls: int
    bytes: int
    read_ns: float
    copy_ns: float
    process_ns: float

    @property
    def total_ns(self) -> float:
        """All three."""
        return self.read_ns + self.copy_ns + self.process_ns


@dataclass(frozen=True)
class Timing:
    """`total_ns` is from the first span to the last end, over all processes together; one rank's own if asked for."""

    total_ns: int
    processes: int
    stages: tuple[StageCost, ...]
    files: tuple[FileCost, ...]
    parameters: tuple[ParameterCost, ...]

    def stage(self, name: str) -> StageCost:
        """One stage; without calls where there was none."""
        return next((one for one in self.stages if one.stage == name), StageCost(name, 0, 0.0))


def timing(session: Session, rank: int | None = None) -> Timing:
    """The costs of all ranks, or of one: then with its waiting for others as a row of its own."""
    return session.kept(f"timing {rank}", lambda: _timing(session, rank))


def chosen_pieces(session: Session, rank: int | None) -> tuple[Piece, ...]:
    """The time of every process, or the lanes of one rank."""
    if rank is None:
        return pieces(session)
    return tuple(piece for lane in lanes(session) if lane.rank == rank for piece in lane.pieces)


def _timing(session: Session, rank: int | None) -> Timing:
    found = chosen_pieces(session, rank)
    total, processes = _extent(found)
    tally = _Tally(session, found)
    waited = waited_ns(session, rank) if rank is not None else {}
    return Timing(total, processes, tuple(tally.stages(total, waited, rank)), tally.files(), tally.parameters())


def _extent(found: Iterable[Piece]) -> tuple[int, int]:
    bounds: dict[int, tuple[int, int]] = {}
    for piece in found:
        first, last = bounds.get(piece.span.stream, (piece.start_ns, piece.end_ns))
        bounds[piece.span.stream] = (min(first, piece.start_ns), max(last, piece.end_ns))
    return sum(last - first for first, last in bounds.values()), len(bounds)


@dataclass
class _Tally:
    """Self times by span, summed up in several ways."""

    session: Session
    pieces: tuple[Piece, ...]
    self_ns: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    spans: dict[int, Span] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for piece in self.pieces:
            self.self_ns[id(piece.span)] += piece.ns
            self.spans[id(piece.span)] = piece.span
        self.reads = [span for span in self.spans.values() if span.kind == "tensor.read"]
        self.calls = [span for span in self.spans.values() if span.kind == "loader.called"]
        self.copied = copied_bytes(self.session)

    def ns(self, span: Span) -> float:
        return self.self_ns[id(span)]

    def stages(self, total: int, waited: dict[str, int], rank: int | None) -> Iterable[StageCost]:
        used = _used(self.session, rank)
        times: dict[str, float] = defaultdict(float)
        counts: dict[str, int] = defaultdict(int)
        for span in self.spans.values():
            times[span.stage] += self.ns(span)
            counts[span.stage] += 1
        moved = {
            "tensor.read": sum(span.facts[1] or 0 for span in self.reads),
            "weight.load": sum(self.copied.get((span.stream, span.seq), 0) for span in self.calls),
        }
        for stage in STAGE_OF.values():
            if counts[stage]:
                spent = used.get(stage, _NOBODY)
                own = times[stage] - waited.get(stage, 0)
                yield StageCost(stage, counts[stage], own, moved.get(stage, 0), *spent)
        if sum(waited.values()):
            yield StageCost(WAITING, 0, sum(waited.values()))
        left = total - sum(times.values())
        if left > 0:
            yield StageCost(BETWEEN, 0, left)

    def files(self) -> tuple[FileCost, ...]:
        listed = header(self.session)
        made: dict[str, list[float]] = defaultdict(lambda: [0, 0, 0, 0.0, 0.0])
        for span in self.reads:
            name, size = span.facts[0] or "", span.facts[1] or 0
            one = made[listed[name].file if name in listed else ""]
            one[0] += 1
            one[1] += listed[name].end - listed[name].begin if name in listed else size
            one[3] += self.ns(span)
        for span in self.calls:
            name = span.facts[1] or ""
            one = made[listed[name].file if name in listed else ""]
            one[2] += 1
            one[4] += self.ns(span)
        rows = [FileCost(file, int(a), int(b), int(c), d, e) for file, (a, b, c, d, e) in made.items()]
        return tuple(sorted(rows, key=lambda row: row.file))

    def parameters(self) -> tuple[ParameterCost, ...]:
        made: dict[str, list[float]] = defaultdict(lambda: [0, 0, 0.0, 0.0, 0.0])
        takers: dict[str, dict[str, None]] = defaultdict(dict)
        for span in self.calls:
            parameter, tensor = span.facts[0] or "", span.facts[1] or ""
            one = made[parameter]
            one[0] += 1
            one[1] += self.copied.get((span.stream, span.seq), 0)
            one[3] += self.ns(span)
            takers[tensor][parameter] = None
        for span in self.reads:
            users = takers.get(span.facts[0] or "", {})
            for parameter in users:
                made[parameter][2] += self.ns(span) / len(users)
        self._process(made)
        rows = [ParameterCost(name, int(a), int(b), c, d, e) for name, (a, b, c, d, e) in made.items()]
        return tuple(sorted(rows, key=lambda row: -row.total_ns))

    def _process(self, made: dict[str, list[float]]) -> None:
        sizes: dict[str, dict[str, int]] = defaultdict(dict)
        for row in self.session.rows("parameter.registered", ("parameter", "size_bytes")):
            name = row[6] or ""
            sizes[name.rpartition(".")[0]][name] = row[7] or 0
        for span in self.spans.values():
            if span.kind == "weights.processed":
                held = sizes.get(span.facts[0] or "", {})
                whole = sum(held.values())
                for name, size in held.items():
                    made[name][4] += self.ns(span) * (size / whole if whole else 1 / len(held))


def copied_bytes(session: Session) -> dict[tuple[int, int], int]:
    """For each loader call (stream, seq) the bytes of the checkpoint tensor that its cuts left over to be copied."""
    return session.kept("copied bytes", lambda: _copied_bytes(session))


def _copied_bytes(session: Session) -> dict[tuple[int, int], int]:
    out: dict[tuple[int, int], int] = {}
    for stream in session.streams:
        left: dict[int, float] = defaultdict(lambda: 1.0)
        for _, _, _, parent, _, length, size in stream.columns("shard.split", ("length", "size"), 1, stream.count):
            left[parent] *= (length or 0) / size if size else 1.0
        for seq, _, _, _, _, size in stream.columns("loader.called", ("tensor_bytes",), 1, stream.count):
            out[stream.number, seq] = round((size or 0) * left[seq]) if seq in left else size or 0
    return out


Used = tuple["int | None", "int | None", "int | None"]
_NOBODY: Used = (None, None, None)


def _used(session: Session, rank: int | None) -> dict[str, Used]:
    """By stage: CPU ns of its threads, bytes that its process read from storage, and major faults of its process.

    Ranks that are threads of one process have each seen the same reads and faults: those of the first one count.
    """
    made: dict[str, list[int]] = {}
    first: dict[tuple[int, str], int] = {}
    ended: dict[tuple[int, str, int], int] = {}
    fields = ("of_stage", "thread_cpu_ns", "read_bytes", "major_faults")
    for row in sorted(session.rows("stage.timed", fields), key=lambda row: (row[2], -(row[3] or 0))):
        _, stream, start, dur, _, of_rank, stage, cpu, read, faults = row
        if rank not in {None, of_rank} or start < ended.get((stream, stage, of_rank), 0):
            continue  # a model that hands over to its parts: the whole was counted
        ended[stream, stage, of_rank] = start + (dur or 0)
        one = made.setdefault(stage or "", [0, -1, -1])
        one[0] += max(cpu or 0, 0)
        if first.setdefault((stream, stage), of_rank) == of_rank:
            one[1], one[2] = _added(one[1], read), _added(one[2], faults)
    return {stage: (cpu, *(None if n < 0 else n for n in rest)) for stage, (cpu, *rest) in made.items()}  # type: ignore[misc]


def _added(known: int, found: int | None) -> int:
    return known if found is None or found < 0 else max(known, 0) + found
