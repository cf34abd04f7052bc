"""What memory was used when: growth by stage and by parameter, and what ran when the most of it was held."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sessions.session import Session
from sessions.spans import Piece, Span, lanes, pieces

BETWEEN = "between stages"
_NOISE_BYTES = 1 << 18
"""Counters of the resident set lag behind by some pages of each processor."""
_CLOSE = 0.02
"""A moment within so much of the way from the first look to the peak is at the peak."""


_NUMBERS = (
    "rss_bytes", "peak_rss_bytes", "file_bytes", "minor_faults", "major_faults", "device_allocated_bytes",
    "device_peak_bytes",
)  # fmt: skip
MOST_CLIMBS = 16


@dataclass(frozen=True)
class Sample:
    """One look at a process; -1 where nobody tells."""

    t_ns: int
    cause: str
    rss_bytes: int
    peak_rss_bytes: int
    file_bytes: int
    minor_faults: int
    major_faults: int
    device: str
    device_allocated_bytes: int
    device_peak_bytes: int


@dataclass(frozen=True)
class Culprit:
    """What ran while memory rose: `share` of the stretch in question was its own time."""

    stage: str
    name: str
    checkpoint_name: str
    rank: int
    share: float


@dataclass(frozen=True)
class Climb:
    """The high-water mark rose by `bytes` to `to_bytes` between two looks, `from_ns` and `until_ns`.

    `during` is what ran there, the longest first; empty: nothing that the session has a span of.
    """

    bytes: int
    to_bytes: int
    from_ns: int
    until_ns: int
    during: tuple[Culprit, ...]

    @property
    def resolution_ns(self) -> int:
        """How far apart the two looks were: the moment is not known any closer."""
        return self.until_ns - self.from_ns


@dataclass(frozen=True)
class Growth:
    """How memory changed while something ran, in bytes; what rose between two looks is shared by time."""

    rss_bytes: float = 0.0
    device_bytes: float = 0.0
    major_faults: float = 0.0


@dataclass(frozen=True)
class ProcessMemory:
    """One process. `peak` is None when its greatest size was reached before the first look."""

    stream: int
    samples: tuple[Sample, ...]
    peak_bytes: int
    peak: Climb | None
    climbs: tuple[Climb, ...]
    device_peak: Climb | None
    stages: dict[str, Growth] = field(default_factory=dict)
    parameters: dict[str, Growth] = field(default_factory=dict)

    @property
    def begin_bytes(self) -> int:
        """The resident set at the first look."""
        return self.samples[0].rss_bytes

    @property
    def end_bytes(self) -> int:
        """The resident set at the last look."""
        return self.samples[-1].rss_bytes

    @property
    def device(self) -> str:
        """The accelerator whose allocator was asked, "" for none."""
        return next((one.device for one in self.samples if one.device), "")


def memory(session: Session) -> tuple[ProcessMemory, ...]:
    """Every process that was looked at, the one with the highest peak first; empty for sessions without samples."""
    return session.kept("memory", lambda: _memory(session))


def _memory(session: Session) -> tuple[ProcessMemory, ...]:
    found: dict[int, list[Sample]] = defaultdict(list)
    for row in session.rows("memory.sampled", ("cause", *_NUMBERS[:5], "device", *_NUMBERS[5:])):
        rss, top, file, minor, major, held, most = (-1 if n is None else n for n in (*row[7:12], *row[13:]))
        sample = Sample(row[2], row[6] or "", rss, top, file, minor, major, row[12] or "", held, most)
        found[row[1]].append(sample)
    made = [_process(session, stream, sorted(s, key=lambda one: one.t_ns)) for stream, s in found.items()]
    return tuple(sorted(made, key=lambda one: -one.peak_bytes))


def _process(session: Session, stream: int, samples: list[Sample]) -> ProcessMemory:
    own = [piece for piece in pieces(session) if piece.span.stream == stream]
    around = _Around([piece for lane in lanes(session) if lane.stream == stream for piece in lane.pieces])
    marks = _rising([max(one.rss_bytes, one.peak_rss_bytes) for one in samples])
    climbs = _climbs(samples, marks)
    device = _rising([one.device_peak_bytes for one in samples])
    on_device = _climbs(samples, device) if device[-1] > 0 else []
    stages, parameters = _growths(samples, own)
    return ProcessMemory(
        stream=stream,
        samples=tuple(samples),
        peak_bytes=marks[-1],
        peak=around.blamed(_peak(climbs, marks)),
        climbs=tuple(around.told(one) for one in sorted(climbs, key=lambda one: -one.bytes)[:MOST_CLIMBS]),
        device_peak=around.blamed(_peak(on_device, device)),
        stages=stages,
        parameters=parameters,
    )


def _rising(values: Sequence[int]) -> list[int]:
    out: list[int] = []
    for value in values:
        out.append(max(value, out[-1] if out else value))
    return out


def _climbs(samples: Sequence[Sample], marks: Sequence[int]) -> list[Climb]:
    """The stretches between two looks in which the high-water mark rose, in order of time; nobody is blamed yet."""
    out: list[Climb] = []
    for place in range(1, len(samples)):
        rise = marks[place] - marks[place - 1]
        if rise >= _NOISE_BYTES:
            out.append(Climb(rise, marks[place], samples[place - 1].t_ns, samples[place].t_ns, ()))
    return out


def _peak(climbs: Sequence[Climb], marks: Sequence[int]) -> Climb | None:
    """The first climb that came close to the greatest size: what rises by some pages later is not what made it."""
    if not climbs:
        return None
    enough = marks[-1] - max(_NOISE_BYTES, int((marks[-1] - marks[0]) * _CLOSE))
    return next((climb for climb in climbs if climb.to_bytes >= enough), climbs[-1])


class _Around:
    """What ran in a process, to be asked for a stretch of time."""

    def __init__(self, found: list[Piece]) -> None:
        self._pieces = found
        self._edges = np.array([(p.start_ns, p.end_ns) for p in found], dtype=np.int64).reshape(-1, 2)

    def blamed(self, climb: Climb | None) -> Climb | None:
        """The climb with what ran during it."""
        return None if climb is None else self.told(climb)

    def told(self, climb: Climb) -> Climb:
        """The climb with what was innermost then, by its share of the time; work before what only holds others."""
        start, end = climb.from_ns, climb.until_ns
        inside = np.flatnonzero((self._edges[:, 1] > start) & (self._edges[:, 0] < end))
        shares: dict[int, float] = defaultdict(float)
        known: dict[int, Span] = {}
        for piece in (self._pieces[place] for place in inside):
            named = _named(piece.span)
            shares[id(named)] += (min(piece.end_ns, end) - max(piece.start_ns, start)) / max(1, end - start)
            known[id(named)] = named
        order = sorted(known.values(), key=lambda span: (span.is_around, -shares[id(span)]))
        return replace(climb, during=tuple(_culprit(span, shares[id(span)]) for span in order))


def _named(span: Span) -> Span:
    """A kernel is told by the outermost one around it: a module's, where there is one."""
    while span.parent is not None and span.parent.kind == span.kind:
        span = span.parent
    return span


def _culprit(span: Span, share: float) -> Culprit:
    facts = span.facts
    if span.kind == "loader.called":
        return Culprit(span.stage, str(facts[0] or ""), str(facts[1] or ""), span.rank, min(1.0, share))
    if span.kind == "kernel.launched":
        name = " ".join(str(one) for one in (facts[1], facts[0]) if one)
        return Culprit(span.stage, name, "", span.rank, min(1.0, share))
    name = str(facts[0] or "") if facts else ""
    return Culprit(span.stage, name, name if span.kind == "tensor.read" else "", span.rank, min(1.0, share))


def _growths(samples: list[Sample], own: list[Piece]) -> tuple[dict[str, Growth], dict[str, Growth]]:
    """By stage, with what lies between them, and by parameter. Before the first and after the last look: nothing."""
    times = [one.t_ns for one in samples]
    series = [
        [one.rss_bytes for one in samples],
        [max(0, one.device_allocated_bytes) for one in samples],
        [max(0, one.major_faults) for one in samples],
    ]
    changes = np.array([_changes(times, values, own) for values in series]).reshape(3, len(own))
    stages = _summed(own, changes, lambda span: span.stage)
    whole = [values[-1] - values[0] for values in series]
    known = [sum(getattr(one, name) for one in stages.values()) for name in vars(Growth())]
    stages[BETWEEN] = Growth(*(a - b for a, b in zip(whole, known, strict=True)))
    return stages, _summed(own, changes, _parameter)


def _changes(times: list[int], values: Sequence[int], own: list[Piece]) -> np.ndarray:
    edges = np.array([(piece.start_ns, piece.end_ns) for piece in own], dtype=np.float64).reshape(-1, 2) - times[0]
    held = np.interp(edges, np.array(times, dtype=np.float64) - times[0], np.array(values, dtype=np.float64))
    shares = np.array([piece.share for piece in own])
    return np.asarray((held[:, 1] - held[:, 0]) * shares)


def _parameter(span: Span) -> str:
    return str(span.facts[0] or "") if span.kind == "loader.called" else ""


def _summed(own: list[Piece], changes: np.ndarray, name_of: Callable[[Span], str]) -> dict[str, Growth]:
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for place, piece in enumerate(own):
        name = name_of(piece.span)
        if name:
            for row in range(3):
                sums[name][row] += float(changes[row, place])
    return {name: Growth(*values) for name, values in sums.items()}


def nearest(samples: Sequence[Sample], t_ns: int) -> Sample | None:
    """The last look at or before a moment, the first one for a moment before all."""
    place = bisect_left(samples, t_ns + 1, key=lambda one: one.t_ns)
    return samples[max(0, place - 1)] if samples else None
