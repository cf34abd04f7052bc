"""A profile as the object of `--json`: numbers in bytes, ns and per second, nothing rounded for the eye."""

from __future__ import annotations

from dataclasses import asdict

from sessions.memory import Climb, ProcessMemory
from workbench.errors import INCOMPLETE
from workbench.profile.profile import TABLES, Profile, phases
from workbench.profile.rows import Row


def as_json(
    profile: Profile, verb: str, exit_code: int, by: str | None, top: int | None, written: list[str]
) -> dict[str, object]:
    """Everything that `loadscope profile` tells; `by` leaves one table only, `top` cuts the tables."""
    manifest = profile.manifest
    said: dict[str, object] = {
        "schema": 1,
        "verb": verb,
        "outcome": "incomplete" if exit_code == INCOMPLETE else "ok",
        "exit_code": exit_code,
        "session": str(profile.session.path),
        "engine": manifest.engine,
        "device": profile.device or manifest.device,
        "level": manifest.level,
        "is_live": profile.is_live,
        "total_ns": profile.timing.total_ns,
        "processes": profile.timing.processes,
        "phases": {one.name: one.ns for one in phases(profile)},
        "forward_passes": len(profile.passes),
        "tables": {name: [_row(row) for row in profile.table(name)[:top]] for name in TABLES if by in {None, name}},
        "memory": [_memory(one) for one in profile.memory],
    }
    if profile.rank is not None:
        said["rank"] = profile.rank
    if profile.machine is not None:
        said["machine"] = asdict(profile.machine)
    if written:
        said["written"] = written
    return said


def _row(row: Row) -> dict[str, object]:
    """What is not known is left out."""
    facts = {**asdict(row), "bytes_per_s": row.bytes_per_s, "flops_per_s": row.flops_per_s}
    is_counted = row.flops is not None
    unused = {"flops_ns", "unknown_flops", "unknown_bytes"} if not is_counted else set()
    unused |= {"bytes_ns"} if row.bytes is None else set()
    return {name: value for name, value in facts.items() if value is not None and name not in unused}


def _memory(one: ProcessMemory) -> dict[str, object]:
    said: dict[str, object] = {
        "stream": one.stream,
        "samples": len(one.samples),
        "begin_bytes": one.begin_bytes,
        "end_bytes": one.end_bytes,
        "file_bytes": one.samples[-1].file_bytes,
        "peak_bytes": one.peak_bytes,
        "peak": _climb(one.peak),
        "rises": [_climb(climb) for climb in one.climbs],
        "stages": {name: asdict(growth) for name, growth in one.stages.items()},
    }
    if one.device:
        said |= {"device": one.device, "device_peak": _climb(one.device_peak)}
    return said


def _climb(climb: Climb | None) -> dict[str, object] | None:
    """None: the process had been as large before it was looked at."""
    if climb is None:
        return None
    return {
        "bytes": climb.bytes,
        "to_bytes": climb.to_bytes,
        "resolution_ns": climb.resolution_ns,
        "during": [asdict(culprit) for culprit in climb.during[:5]],
        "during_others": max(0, len(climb.during) - 5),
    }
