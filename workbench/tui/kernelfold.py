"""Launches folded by rank, layer, module, op and shapes, from plain rows of the session."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

from sessions.launches import layer_of
from sessions.session import Session


@dataclass(frozen=True)
class Kernel:
    """All launches of one op with the same shapes in one module by one rank; `position` is the first.

    `total_ns` is the host's time; `device_ns` the device's, of those launches that were timed there.
    """

    rank: int
    layer: str
    module: str
    name: str
    launcher: str
    phase: str
    shapes: tuple[str, ...]
    outputs: tuple[str, ...]
    grid: tuple[int, ...]
    options: str
    position: int
    launches: int = 0
    total_ns: int = 0
    device_ns: int = 0

    @staticmethod
    def joined(group: Sequence[Kernel]) -> Kernel:
        """Several as one: the first one's facts, everyone's launches and time."""
        if len(group) == 1:
            return group[0]
        first = min(group, key=lambda one: one.position)
        launches, total_ns = sum(one.launches for one in group), sum(one.total_ns for one in group)
        return replace(first, launches=launches, total_ns=total_ns, device_ns=sum(one.device_ns for one in group))


_FIELDS = ("name", "launcher", "module", "shapes", "outputs", "grid", "options", "device_ns")


@dataclass(frozen=True)
class Launches:
    """A kernel of the whole session, with the position of every launch and the time used up to and with it."""

    kernel: Kernel
    positions: array[int]
    used_ns: array[int]
    device_ns: array[int]
    made: dict[int, Kernel] = field(default_factory=dict, compare=False)

    def at(self, until: int) -> Kernel | None:
        """The kernel as of an event: with the launches until then, None before the first."""
        count = bisect_right(self.positions, until)
        if count == len(self.positions):
            return self.kernel
        if count and count not in self.made:
            used_ns, device_ns = self.used_ns[count - 1], self.device_ns[count - 1]
            self.made[count] = replace(self.kernel, launches=count, total_ns=used_ns, device_ns=device_ns)
        return self.made.get(count)


def kernels(session: Session) -> tuple[Kernel, ...]:
    """Every kernel of a session in the order of its first launch."""
    return tuple(one.kernel for one in _launched(session))


def kernels_at(session: Session, until: int | None) -> tuple[Kernel, ...]:
    """The kernels that had been launched at an event (None: at the end), with their launches until then."""
    if until is None:
        return kernels(session)
    return tuple(kernel for one in _launched(session) if (kernel := one.at(until)) is not None)


def _launched(session: Session) -> tuple[Launches, ...]:
    return session.kept("kernel launches", lambda: _read(session))


def _read(session: Session) -> tuple[Launches, ...]:
    phases = _phases(session)
    found: dict[tuple[object, ...], list[tuple[int, int, int]]] = defaultdict(list)
    firsts: dict[tuple[object, ...], tuple[object, ...]] = {}
    for position, stream, _, dur, parent, rank, *facts, device in session.rows("kernel.launched", _FIELDS):
        phase = phases.get((stream, parent), "")
        key = (rank, facts[2], facts[0], facts[3], phase)
        found[key].append((position, dur or 0, max(0, device or 0)))
        firsts.setdefault(key, (position, phase, *facts))
    made = [_with_launches(key, firsts[key], launches) for key, launches in found.items()]
    return tuple(sorted(made, key=lambda one: one.kernel.position))


def _with_launches(
    key: tuple[object, ...], first: tuple[object, ...], launches: list[tuple[int, int, int]]
) -> Launches:
    launches.sort()
    used = array("q", accumulate(ns for _, ns, _ in launches))
    on_device = array("q", accumulate(ns for _, _, ns in launches))
    whole = _kernel(key, first, [len(launches), used[-1], on_device[-1]])
    return Launches(whole, array("q", (at for at, _, _ in launches)), used, on_device)


def _phases(session: Session) -> dict[tuple[int, int], str]:
    """The phase of each forward pass, by its stream and seq."""
    passes = session.rows("forward.ran", ("phase",))
    return {(stream, session.event(position).seq): str(phase or "") for position, stream, _, _, _, _, phase in passes}


def _kernel(key: tuple[object, ...], first: tuple[object, ...], counted: list[int]) -> Kernel:
    position, phase, name, launcher, module, shapes, outputs, grid, options = first
    path = str(module or "")
    return Kernel(
        rank=_whole(key[0]),
        layer=layer_of(path),
        module=path,
        name=str(name or ""),
        launcher=str(launcher or ""),
        phase=str(phase),
        shapes=_texts(shapes),
        outputs=_texts(outputs),
        grid=tuple(_whole(one) for one in grid) if isinstance(grid, tuple) else (),
        options=str(options or ""),
        position=_whole(position),
        launches=counted[0],
        total_ns=counted[1],
        device_ns=counted[2],
    )


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(one) for one in value) if isinstance(value, tuple) else ()
