"""A profile as lines for a terminal: what it was, where time went, what memory did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from sessions.loaded import loaded
from sessions.memory import Climb, Culprit, ProcessMemory
from sessions.timing import WAITING
from workbench.profile.profile import OF_FORWARD, TABLES, Profile, phases
from workbench.profile.rows import Row
from workbench.profile.units import (
    bar,
    duration,
    grown,
    operations,
    operations_rate,
    percent,
    rate,
    size,
    some,
)

BAR = 16
NAME_WIDTH = 60
TOP = 10
TOP_OF_EACH = 5
RISES = 3
_COUNTED = {"file": "tensors"}
_GIVES_WAY = (
    "major faults", "from disk", "cpu", "device", "of product", "of memcpy", "post-process", "FLOP", "bytes", "share",
    "copy", "read", "memory",
)  # fmt: skip

Cell = Callable[[Row], str]


def told(profile: Profile, by: str | None, top: int | None, width: int | None = None) -> list[str]:
    """The whole profile, or one of its tables; `width` is that of the terminal, None for a file."""
    lines = head(profile)
    if by is not None:
        return [*lines, "", *table(profile, by, TOP if top is None else top, width), *_notes(profile, by)]
    lines += ["", *table(profile, "stage", None, width), *_notes(profile, "stage"), "", *memory(profile)]
    for name in (name for name in TABLES[1:] if profile.table(name)):
        lines += ["", *table(profile, name, TOP_OF_EACH if top is None else top, width)]
    if profile.passes:
        lines += _notes(profile, "kernel")
    if not profile.passes:
        lines += ["", f"forward   not recorded: {_why_no_forward(profile)}"]
    return lines


def head(profile: Profile) -> list[str]:
    """What was recorded, how long it took and on what machine."""
    timing, told = profile.timing, loaded(profile.session)
    if profile.device:
        told = replace(told, device=profile.device)
    words = (told.name, *told.facts, "" if profile.rank is None else f"rank {profile.rank}")
    parts = " · ".join(f"{one.name} {duration(one.ns)}" for one in phases(profile))
    where = "" if timing.processes <= 1 else f" over {timing.processes} processes"
    lines = [f"profile   {' · '.join(filter(None, words))}", f"total     {duration(timing.total_ns)}{where}: {parts}"]
    lines += _forward(profile)
    machine = profile.machine
    if machine is None:
        lines.append("machine   not known: this session does not say how fast its machine copies memory")
    else:
        product = f" · product {operations_rate(machine.matmul_flops_per_s)} (float32)"
        lines.append(
            f"machine   memcpy {rate(machine.memcpy_bytes_per_s)} by one thread"
            f"{product if machine.matmul_flops_per_s else ''} · {some(machine.processors, 'processor')}"
        )
    outcome = profile.manifest.outcome
    state = outcome.state if outcome is not None else ""
    if profile.is_live:
        lines.append("state     the host still runs: this is what it did until now")
    elif state not in ("", "ok"):
        lines.append(f"state     {state}: what was open when the host ended counts up to the last event")
    return lines


def _forward(profile: Profile) -> list[str]:
    """The passes by phase, as the first rank of each process saw them: lockstep ranks run in each other's time."""
    first: dict[int, int] = {}
    for one in profile.passes:
        first[one.stream] = min(one.rank, first.get(one.stream, one.rank))
    told = []
    for phase in dict.fromkeys(one.phase for one in profile.passes):
        own = [one for one in profile.passes if one.phase == phase and one.rank == first[one.stream]]
        passes, tokens = some(len(own), "pass"), some(sum(one.tokens for one in own), "token")
        told.append(f"{phase or 'forward'} {passes} of {tokens} in {duration(sum(one.ns for one in own))}")
    return [f"forward   {' · '.join(told)}"] if told else []


def table(profile: Profile, by: str, top: int | None, width: int | None = None) -> list[str]:
    """One table, cut after `top` rows with a line of what was left out."""
    rows = profile.table(by)
    shown = rows[:top] if top is not None else rows
    whole = profile.timing.total_ns if by == "stage" else sum(row.ns for row in rows)
    lines = laid_out(_columns(profile, by, rows, whole), shown, width)
    left = rows[len(shown) :]
    if left:
        lines.append(f"… and {some(len(left), by)} more, {duration(sum(row.ns for row in left))}: --top {len(rows)}")
    return lines


def laid_out(columns: Sequence[tuple[str, Cell]], rows: Sequence[Row], width: int | None = None) -> list[str]:
    """Aligned text: the first column to the left, all others to the right; empty columns are left out.

    With a width the columns of `_GIVES_WAY` leave, one after the other, until the lines fit.
    """
    texts = {title: [cell(row) for row in rows] for title, cell in columns}
    kept = {title: cells for title, cells in texts.items() if any(cell.strip() for cell in cells)}
    widths = {title: max(len(title), *(len(cell) for cell in cells)) for title, cells in kept.items()}
    for title in _GIVES_WAY:
        if width is not None and sum(widths.values()) + 2 * len(widths) - 2 > width:
            widths.pop(title, None)
    lines = [{title: title for title in widths}]
    lines += [{title: kept[title][number] for title in widths} for number in range(len(rows))]
    return [_aligned(line, widths) for line in lines]


def _aligned(line: dict[str, str], widths: dict[str, int]) -> str:
    cells = [text.rjust(widths[title]) if place else text.ljust(widths[title])
             for place, (title, text) in enumerate(line.items())]  # fmt: skip
    return "  ".join(cells).rstrip()


def _columns(profile: Profile, by: str, rows: Sequence[Row], whole: float) -> list[tuple[str, Cell]]:
    machine = profile.machine
    has_unknown = any(row.unknown_flops for row in rows)
    copy = machine.moved_bytes_per_s if machine is not None and by in OF_FORWARD else 0.0
    copy = machine.memcpy_bytes_per_s if machine is not None and by not in OF_FORWARD else copy
    product = machine.matmul_flops_per_s if machine is not None else 0.0
    if profile.device and by in OF_FORWARD:
        copy = product = 0.0  # what the processor can do says nothing about what the accelerator can
    rates = not (by in OF_FORWARD and profile.is_timed_on_host_only)
    return [
        (by, lambda row: shortened(row.name, NAME_WIDTH)),
        (_COUNTED.get(by, "calls"), lambda row: f"{row.calls:,}" if row.calls else ""),
        ("time", lambda row: duration(row.ns)),
        (
            "share",
            lambda row: f"{bar(row.ns / whole if whole else 0, BAR)} {percent(row.ns / whole if whole else 0):>6}",
        ),
        ("read", lambda row: _maybe(row.read_ns, duration)),
        ("copy", lambda row: _maybe(row.copy_ns, duration)),
        ("post-process", lambda row: _maybe(row.process_ns, duration)),
        ("cpu", lambda row: _maybe(row.cpu_ns, duration)),
        ("memory", lambda row: _maybe(row.rss_bytes, grown)),
        ("device", lambda row: _maybe(row.device_bytes, grown)),
        ("bytes", lambda row: _known(row.bytes, row.unknown_bytes, size)),
        ("rate", lambda row: _maybe(row.bytes_per_s, rate) if rates else ""),
        ("of memcpy", lambda row: percent(row.bytes_per_s / copy) if rates and copy and row.bytes_per_s else ""),
        ("FLOP", lambda row: _known(row.flops, row.unknown_flops, operations) if row.flops or has_unknown else ""),
        ("FLOP/s", lambda row: _maybe(row.flops_per_s, operations_rate) if rates else ""),
        ("of product", lambda row: percent(row.flops_per_s / product) if rates and product and row.flops_per_s else ""),
        ("from disk", lambda row: _maybe(row.read_bytes, size) if row.read_bytes else ""),
        ("major faults", lambda row: _maybe(row.major_faults, lambda n: f"{n:.0f}") if row.major_faults else ""),
    ]


def _maybe(value: float | None, shown: Callable[[float], str]) -> str:
    return "" if value is None else shown(value)


def _known(value: int | None, unknown: int, shown: Callable[[float], str]) -> str:
    """A sum; `?` where nothing of it is known, `≥` where some launches are left out."""
    if value is None or (not value and not unknown):
        return ""
    return shown(value) if not unknown else f"≥ {shown(value)}" if value else "?"


def shortened(name: str, width: int) -> str:
    """A dotted name loses its front: its end is what differs."""
    return name if len(name) <= width else f"…{name[len(name) - width + 1 :]}"


def _notes(profile: Profile, by: str) -> list[str]:
    rows, out = profile.table(by), []
    faults = profile.timing.stage("weight.map").major_faults
    if by == "stage" and faults:
        out.append(
            "read hands out mapped pages: what was not in memory came from disk inside the copy "
            f"({some(faults, 'major fault')} while weights were mapped)"
        )
    if by == "stage" and profile.timing.stage(WAITING).self_ns:
        out.append("waiting: nothing of this rank ran, and another rank of its process worked")
    if by == "stage" and profile.manifest.level not in ("", "calls"):
        out.append(
            f"recorded at level {profile.manifest.level}, which is part of these times: --level calls costs least"
        )
    if any(row.unknown_flops for row in rows):
        out.append("? and ≥: products of operators whose shapes do not tell them are not counted")
    if by in OF_FORWARD and profile.is_timed_on_host_only:
        out.append(f"times are of the launches: {profile.device} was not asked for its own, so there are no rates")
    elif by in OF_FORWARD and any((row.bytes_per_s or 0) and profile.machine for row in rows):
        out.append("bytes: arguments and results, each once; of memcpy: reads and writes against twice what it copies")
    return out


# --- memory


def memory(profile: Profile) -> list[str]:
    """The highest process: its size over time, when it was greatest and what ran then."""
    if not profile.memory:
        return ["memory    not recorded: this session has no samples; record the load again"]
    found = profile.memory[0]
    files = found.samples[-1].file_bytes
    of_files = f", {size(files)} of it pages of files" if files > 0 else ""
    lines = [
        f"memory    {size(found.begin_bytes)} when the first stage began, {size(found.end_bytes)} at the end{of_files}",
        f"peak      {size(found.peak_bytes)} {_peak(found)}",
    ]
    lines += [f"{'rises' if n == 0 else '':<10}{_climb(one)}" for n, one in enumerate(found.climbs[:RISES])]
    if found.device_peak is not None:
        lines.append(f"{found.device:<10}{size(found.device_peak.to_bytes)} at most, {_when(found.device_peak)}")
    others = len(profile.memory) - 1
    if others:
        lines.append(f"          and {some(others, 'process')} with lower peaks: {_others(profile)}")
    return lines


def _peak(found: ProcessMemory) -> str:
    if found.peak is None:
        return "had been reached before the first stage"
    return f"{_when(found.peak)}, {size(found.peak.to_bytes - found.samples[0].rss_bytes)} above the beginning"


def _climb(climb: Climb) -> str:
    return f"{grown(climb.bytes):>9} to {size(climb.to_bytes)}, {_when(climb)}"


def _when(climb: Climb) -> str:
    if not climb.during:
        return f"within {duration(climb.resolution_ns)} between stages"
    first, *others = climb.during
    more = f" and {len(others):,} more" if others else ""
    return f"within {duration(climb.resolution_ns)} of {told_culprit(first)} ({percent(first.share)} of the time){more}"


def told_culprit(one: Culprit) -> str:
    """`weight.load layers.3.mlp.w13_weight ← experts.2.gate_proj.weight, rank 0`."""
    source = f" ← {one.checkpoint_name}" if one.checkpoint_name and one.checkpoint_name != one.name else ""
    rank = f", rank {one.rank}" if one.rank >= 0 else ""
    return f"{one.stage} {one.name}{source}{rank}".replace("  ", " ")


def _others(profile: Profile) -> str:
    return ", ".join(size(one.peak_bytes) for one in profile.memory[1:6])


def _why_no_forward(profile: Profile) -> str:
    state = profile.manifest.outcome.state if profile.manifest.outcome is not None else "running"
    if profile.is_live:
        return "the host has not come so far yet"
    return "the host ran none" if state == "ok" else f"the host ended before ({state})"
