"""Launches folded by rank, layer, module, op and shapes, from plain rows of the session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
        first = min(group, key=lambda one: one.position)
        launches, total_ns = sum(one.launches for one in group), sum(one.total_ns for one in group)
        return replace(first, launches=launches, total_ns=total_ns, device_ns=sum(one.device_ns for one in group))


_FIELDS = ("name", "launcher", "module", "shapes", "outputs", "grid", "options", "device_ns")


def kernels(session: Session) -> tuple[Kernel, ...]:
    """Every kernel of a session in the order of its first launch."""
    phases = _phases(session)
    found: dict[tuple[object, ...], list[int]] = {}
    firsts: dict[tuple[object, ...], tuple[object, ...]] = {}
    for position, stream, _, dur, parent, rank, *facts, device in session.rows("kernel.launched", _FIELDS):
        phase = phases.get((stream, parent), "")
        key = (rank, facts[2], facts[0], facts[3], phase)
        counted = found.setdefault(key, [0, 0, 0])
        counted[0] += 1
        counted[1] += dur or 0
        counted[2] += max(0, device or 0)
        firsts.setdefault(key, (position, phase, *facts))
    made = [_kernel(key, firsts[key], counted) for key, counted in found.items()]
    return tuple(sorted(made, key=lambda one: one.position))


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
