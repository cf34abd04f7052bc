"""The rows of every table of a profile: what took how long, how often, and what it moved, computed and held."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sessions.launches import Launch
from workbench.profile.work import work_of


@dataclass(frozen=True)
class Row:
    """One row. Times are ns, sizes bytes; None is "nobody told", and leaves the column out where all rows have it.

    `ns` is its own time, each moment in one row of a table. `read_ns`, `copy_ns`, `process_ns` are parts of it.
    `bytes` took `bytes_ns` of it and `flops` took `flops_ns`: launches of which neither is known are counted in
    `unknown_bytes` and `unknown_flops` and left out of the rates.
    """

    name: str
    calls: int
    ns: float
    read_ns: float | None = None
    copy_ns: float | None = None
    process_ns: float | None = None
    cpu_ns: float | None = None
    bytes: int | None = None
    bytes_ns: float = 0.0
    flops: int | None = None
    flops_ns: float = 0.0
    unknown_bytes: int = 0
    unknown_flops: int = 0
    rss_bytes: float | None = None
    device_bytes: float | None = None
    read_bytes: int | None = None
    major_faults: float | None = None

    @property
    def bytes_per_s(self) -> float | None:
        """What was moved in a second of the time that moved it."""
        return 1e9 * self.bytes / self.bytes_ns if self.bytes and self.bytes_ns > 0 else None

    @property
    def flops_per_s(self) -> float | None:
        """What was computed in a second of the time that computed it."""
        return 1e9 * self.flops / self.flops_ns if self.flops and self.flops_ns > 0 else None


def row_of_launches(name: str, group: Iterable[Launch]) -> Row:
    """Several launches as one row; a device's own time goes before the time on the host where it was told."""
    calls, ns = 0, 0.0
    moved, moved_ns, unmoved = 0, 0.0, 0
    flops, flops_ns, uncounted = 0, 0.0, 0
    for one in group:
        work, took = work_of(one), taken_ns(one)
        calls, ns = calls + 1, ns + took
        if work.bytes is None:
            unmoved += 1
        elif work.bytes:
            moved, moved_ns = moved + work.bytes, moved_ns + took
        if work.flops is None:
            uncounted += 1
        elif work.flops:
            flops, flops_ns = flops + work.flops, flops_ns + took
    return Row(
        name=name, calls=calls, ns=ns, bytes=moved, bytes_ns=moved_ns, flops=flops, flops_ns=flops_ns,
        unknown_bytes=unmoved, unknown_flops=uncounted,
    )  # fmt: skip


def taken_ns(launch: Launch) -> int:
    """What the device took where it was timed, else what the host did."""
    return launch.device_ns if launch.device_ns >= 0 else launch.ns


def slowest(rows: Iterable[Row]) -> tuple[Row, ...]:
    """The longest first."""
    return tuple(sorted(rows, key=lambda row: -row.ns))
