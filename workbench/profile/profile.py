"""A profile of a session: its tables, its memory, the machine it ran on; computed here, printed elsewhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from sessions.launches import Launch, Pass, launches, passes
from sessions.liveness import is_running
from sessions.memory import Growth, ProcessMemory, memory
from sessions.session import Session
from sessions.spans import lanes
from sessions.timing import BETWEEN, StageCost, Timing, timing
from workbench.errors import INCOMPLETE, UserError
from workbench.machine import Machine, machine_of
from workbench.profile.flame import Block, blocks
from workbench.profile.rows import Row, row_of_launches, slowest

TABLES = ("stage", "file", "parameter", "layer", "module", "kernel")
OF_FORWARD = frozenset({"layer", "module", "kernel"})
_RECORD = "record a load with loadscope trace MODEL, or look at the log with loadscope open"
_WAIT = "wait until its first stage has begun, or watch it with loadscope open"
BETWEEN_LAUNCHES = "(between launches)"
OUTSIDE = "(outside the layers)"
NO_MODULE = "(in no module)"


class Profile:
    """What a session cost, over all ranks or of one; its parts are computed when they are asked for."""

    def __init__(self, session: Session, rank: int | None = None) -> None:
        self.session, self.rank = session, rank
        self.manifest = session.manifest
        self._made: dict[str, tuple[Row, ...]] = {}

    @cached_property
    def timing(self) -> Timing:
        """Stages, files and parameters."""
        return timing(self.session, self.rank)

    @cached_property
    def memory(self) -> tuple[ProcessMemory, ...]:
        """Of the processes; with a rank of those that it ran in. The highest peak first."""
        own = {lane.stream for lane in lanes(self.session) if self.rank in {None, lane.rank}}
        return tuple(one for one in memory(self.session) if one.stream in own)

    @cached_property
    def launches(self) -> tuple[Launch, ...]:
        """What the forward passes launched."""
        return tuple(one for one in launches(self.session) if self.rank in {None, one.rank})

    @cached_property
    def passes(self) -> tuple[Pass, ...]:
        """The forward passes."""
        return tuple(one for one in passes(self.session) if self.rank in {None, one.rank})

    @cached_property
    def machine(self) -> Machine | None:
        """Measured by who recorded the session, None for one of before."""
        return machine_of(self.manifest.extra)

    @property
    def is_live(self) -> bool:
        """True while the host still runs."""
        return is_running(self.session)

    @cached_property
    def device(self) -> str:
        """The accelerator that was in use, "" for none."""
        return next((one.device for one in self.memory if one.device), "")

    @property
    def is_timed_on_host_only(self) -> bool:
        """An accelerator was in use and nobody asked it for times: what a launch took is not what its kernel took."""
        return bool(self.device) and not any(one.device_ns >= 0 for one in self.launches)

    def table(self, by: str) -> tuple[Row, ...]:
        """The rows by one of TABLES: stages in their order, files by name, everything else the longest first."""
        if by not in self._made:
            self._made[by] = self._tables[by]()
        return self._made[by]

    @cached_property
    def blocks(self) -> Block:
        """The time as nested blocks."""
        return blocks(self.session, self.rank)

    def prepared(self) -> Profile:
        """Itself with every part computed, so that showing it takes no time."""
        for name in TABLES:
            self.table(name)
        _ = (self.blocks, self.device, self.machine)
        return self

    @cached_property
    def _tables(self) -> dict[str, Callable[[], tuple[Row, ...]]]:
        return {
            "stage": lambda: tuple(self._stage(one) for one in self.timing.stages),
            "file": self._files,
            "parameter": self._parameters,
            "layer": lambda: self._launched(lambda one: one.layer or OUTSIDE),
            "module": lambda: self._launched(lambda one: one.module or NO_MODULE),
            "kernel": lambda: self._launched(lambda one: one.name),
        }

    def _stage(self, cost: StageCost) -> Row:
        grown = self._grown.get(cost.stage)
        return Row(
            name=cost.stage,
            calls=cost.calls,
            ns=cost.self_ns,
            cpu_ns=cost.cpu_ns,
            bytes=cost.bytes or None,
            bytes_ns=cost.self_ns,
            rss_bytes=grown.rss_bytes if grown is not None else None,
            device_bytes=grown.device_bytes if grown is not None and self.device else None,
            read_bytes=cost.read_bytes,
            major_faults=cost.major_faults,
        )

    @cached_property
    def _grown(self) -> dict[str, Growth]:
        """Growth by stage over all processes; of one rank among threads nobody can tell it apart."""
        return _added([one.stages for one in self.memory]) if self._is_whole else {}

    @property
    def _is_whole(self) -> bool:
        """True when the processes looked at ran nothing of other ranks."""
        streams = {one.stream for one in self.memory}
        return self.rank is None or not any(
            lane.stream in streams and lane.rank not in {self.rank, -1} for lane in lanes(self.session)
        )

    def _files(self) -> tuple[Row, ...]:
        return tuple(
            Row(
                name=one.file or "(no file of the header)",
                calls=one.tensors,
                ns=one.total_ns,
                read_ns=one.read_ns,
                copy_ns=one.copy_ns,
                bytes=one.bytes,
                bytes_ns=one.total_ns,
            )
            for one in self.timing.files
        )

    def _parameters(self) -> tuple[Row, ...]:
        grown = _added([one.parameters for one in self.memory]) if self._is_whole else {}
        return slowest(
            Row(
                name=one.parameter or "(no name)",
                calls=one.calls,
                ns=one.total_ns,
                read_ns=one.read_ns,
                copy_ns=one.copy_ns,
                process_ns=one.process_ns,
                bytes=one.bytes,
                bytes_ns=one.read_ns + one.copy_ns,
                rss_bytes=grown[one.parameter].rss_bytes if one.parameter in grown else None,
            )
            for one in self.timing.parameters
        )

    def _launched(self, key: Callable[[Launch], str]) -> tuple[Row, ...]:
        groups: dict[str, list[Launch]] = defaultdict(list)
        for one in self.launches:
            groups[key(one)].append(one)
        rows = [row_of_launches(name, group) for name, group in groups.items()]
        between = self.timing.stage("forward.run")
        if self.passes:
            rows.append(Row(BETWEEN_LAUNCHES, between.calls, between.self_ns))
        return slowest(rows)


@dataclass(frozen=True)
class Phase:
    """A part of the whole: its name and its time."""

    name: str
    ns: float


def phases(profile: Profile) -> tuple[Phase, ...]:
    """Load, forward passes and what is in neither, of the time of a profile."""
    forward = {"forward.run", "kernel.launch"}
    sums: dict[str, float] = defaultdict(float)
    for one in profile.timing.stages:
        sums["forward" if one.stage in forward else "elsewhere" if one.calls == 0 else "load"] += one.self_ns
    return tuple(Phase(name, sums[name]) for name in ("load", "forward", "elsewhere") if sums.get(name))


def require_recorded(profile: Profile, by: str | None = None) -> None:
    """UserError (exit 5) when there is nothing to share out, or nothing of the table that was asked for."""
    folder = profile.session.folder
    if not profile.timing.stages and not profile.timing.total_ns:
        which = "" if profile.rank is None else f" of rank {profile.rank}"
        state = "the host has not come so far yet" if profile.is_live else "nothing of an engine was recorded"
        raise UserError(
            f"{folder} holds no load and no forward pass{which}: {state}",
            _other_rank(profile) or (_WAIT if profile.is_live else _RECORD),
            INCOMPLETE,
        )
    if by in OF_FORWARD and not profile.passes:
        raise UserError(
            f"{folder} holds no forward pass, so there are no {by}s to share its time out to",
            "see where the load went with --by stage, or record one with loadscope trace MODEL --prompt-ids 1,2,3",
            INCOMPLETE,
        )
    if by in {"file", "parameter"} and not profile.table(by):
        raise UserError(
            f"{folder} holds no loader call and no tensor that was read, so there are no {by}s to share time out to",
            "see what there is with --by stage",
            INCOMPLETE,
        )


def _other_rank(profile: Profile) -> str:
    ranks = sorted({lane.rank for lane in lanes(profile.session) if lane.rank >= 0})
    return (
        f"leave --rank away, or give one of {', '.join(map(str, ranks))}" if profile.rank is not None and ranks else ""
    )


def _added(found: list[dict[str, Growth]]) -> dict[str, Growth]:
    out: dict[str, Growth] = {}
    for one in found:
        for name, growth in one.items():
            known = out.get(name, Growth())
            out[name] = Growth(*(getattr(known, field) + getattr(growth, field) for field in vars(known)))
    return out


__all__ = ["BETWEEN", "BETWEEN_LAUNCHES", "OF_FORWARD", "TABLES", "Phase", "Profile", "phases", "require_recorded"]
