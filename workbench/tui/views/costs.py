"""What did it cost: memory and time by stage, file, parameter, layer, module and kernel."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from rich.text import Text

from sessions.memory import Climb, ProcessMemory
from sessions.timing import WAITING
from workbench.profile import units
from workbench.profile.flame import PHASES
from workbench.profile.profile import OF_FORWARD, TABLES, Profile, phases
from workbench.profile.rows import Row
from workbench.profile.telling import told_culprit
from workbench.tui.costplots import memory_plot, time_plot, zoomed
from workbench.tui.keymap import hint
from workbench.tui.lens import Lens
from workbench.tui.marks import share
from workbench.tui.paint import Lines, cut, paint, said, wrapped
from workbench.tui.views.view import Leads, Page, Reading, View, blank, fact, head
from workbench.tui.widgets.longlist import Column
from workbench.tui.wording import milliseconds, size, some

BAR = 12
PLOT_ROWS, BLOCK_ROWS = 4, 3
ZOOM_WIDTH = 110
INSIDE = {"weight.load": "parameter", "tensor.read": "file", "weight.map": "parameter", "weights.process": "parameter"}
"""The table that says more about a stage."""


class Costs(View):
    """One row a stage; `v` goes on to files, parameters, layers, modules and kernels."""

    hints = (
        hint("list.down list.up", "move"),
        hint("variant", "by file, parameter, …"),
        hint("follow", "zoom"),
        hint("order"),
        hint("rank.previous rank.next", "rank"),
        hint("help"),
    )
    orders = ("as run", "slowest first")
    variants = tuple(f"by {name}" for name in TABLES)

    def __init__(self, reading: Reading, lens: Lens) -> None:
        super().__init__(reading, lens)
        self.by = TABLES[lens.variant % len(TABLES)]
        costs = reading.snapshot.costs
        if costs is not None and lens.rank is not None:
            costs = Profile(costs.session, lens.rank)
        self.costs = costs
        rows = costs.table(self.by) if costs is not None else ()
        needle = lens.filter.strip("*\"' ").lower()
        self.total = len(rows)
        self.rows = [row for row in rows if needle in row.name.lower()]
        if lens.order % 2:
            self.rows = sorted(self.rows, key=lambda row: -row.ns)
        self.whole_ns = sum(row.ns for row in rows) or 1.0
        self.longest_ns = max((row.ns for row in rows), default=0.0) or 1.0
        self.has_memory = any(row.rss_bytes is not None for row in rows)
        # names of anything but a stage are long
        self.bar = BAR if self.by == "stage" else BAR // 2
        self.columns = (
            Column(f" {self.by}"),
            Column("calls", 8 if self.by == "stage" else 6, is_right=True),
            Column("ms", 10 if self.by == "stage" else 8, is_right=True),
            Column("share", self.bar),
            Column("memory" if self.has_memory else "GB/s", 9, is_right=True),
        )

    def above(self, width: int) -> Lines:
        """Memory over time with its peak, and the time as blocks."""
        if self.costs is None or not self.costs.timing.total_ns:
            return []
        lines: Lines = []
        for found in self.costs.memory[:1]:
            size_of_file = sum(row.bytes or 0 for row in self.costs.table("file"))
            grown = found.peak_bytes - found.begin_bytes
            times = f"  {grown / size_of_file:.1f} × the files above the start" if size_of_file and grown > 0 else ""
            lines.append(paint("{f|host memory, MB}   peak {w|$}{m|$}", size(found.peak_bytes), times))
            lines += [*memory_plot(found, width, PLOT_ROWS), blank()]
        parts = " · ".join(f"{one.name} {units.duration(one.ns)}" for one in phases(self.costs))
        lines.append(paint("{f|time} {f|$}   {m|$}", units.duration(self.costs.timing.total_ns), parts))
        return [*lines, *time_plot(self.costs.blocks, width, BLOCK_ROWS), blank()]

    def cells(self, row: Row, width: int) -> Sequence[Text]:
        """Name, calls, time, share of the longest, memory or rate."""
        lit = row.ns == self.longest_ns
        last = units.grown(row.rss_bytes or 0) if self.has_memory else self._rate(row)
        return (
            cut(said(f" {row.name.rpartition('::')[2]}", "b" if lit else "t"), width, keeps_end=True),
            said(f"{row.calls:,}" if row.calls else "", "f"),
            said(milliseconds(round(row.ns)), "t" if lit else "m"),
            share(row.ns, self.longest_ns, self.bar, "t" if lit else "m"),
            said(last, "m"),
        )

    def _rate(self, row: Row) -> str:
        is_known = row.bytes_per_s and self.costs is not None and not self.costs.is_timed_on_host_only
        return f"{(row.bytes_per_s or 0) / 1e9:.2f}" if is_known else "?" if row.unknown_bytes else ""

    def start(self) -> int:
        """The row that took longest."""
        return max(range(len(self.rows)), key=lambda at: self.rows[at].ns, default=0)

    def identity(self, row: Row) -> Hashable:
        """Its table and name."""
        return (self.by, row.name)

    def detail(self, row: Row, width: int) -> Lines:
        """Time, memory and rate; then what took it, and the peak if it was here."""
        lines = [*head(self.by, row.name, "", width), blank()]
        lines.append(_line("time", f"{milliseconds(round(row.ns))} ms", units.percent(row.ns / self.whole_ns)))
        lines += [_line(name, units.duration(ns)) for name, ns in _parts(row)]
        if row.calls:
            lines.append(fact("calls", f"{row.calls:,}", indent=15))
        lines += self._numbers(row)
        if self.by in {"stage", "parameter"}:
            lines += self._peak(row, width)
        if self.by == "stage":
            lines += self._longest(row, width)
        return [*lines, blank(), *wrapped(self._says(row), width, "m")]

    def _numbers(self, row: Row) -> Lines:
        costs, lines = self.costs, []
        machine = costs.machine if costs is not None and not costs.device else None
        copied = machine.moved_bytes_per_s if self.by in OF_FORWARD and machine else 0.0
        copied = machine.memcpy_bytes_per_s if self.by not in OF_FORWARD and machine else copied
        if row.rss_bytes is not None:
            lines.append(_line("memory", units.grown(row.rss_bytes) or "as before"))
        if row.bytes:
            lines.append(_line("bytes", size(row.bytes), "and what is not known" if row.unknown_bytes else ""))
        if row.bytes_per_s and not (costs is not None and costs.is_timed_on_host_only):
            of_copy = f"{units.percent(row.bytes_per_s / copied)} of memcpy here" if copied else ""
            lines.append(_line("rate", units.rate(row.bytes_per_s), of_copy))
        if row.flops or row.unknown_flops:
            shown = units.operations(row.flops) if row.flops else "not known from the shapes"
            lines.append(_line("products", shown, "and what is not known" if row.flops and row.unknown_flops else ""))
        if row.flops_per_s and not (costs is not None and costs.is_timed_on_host_only):
            limit = machine.matmul_flops_per_s if machine else 0.0
            of_limit = f"{units.percent(row.flops_per_s / limit)} of a float32 product" if limit else ""
            lines.append(_line("", units.operations_rate(row.flops_per_s), of_limit))
        if row.read_bytes:
            lines.append(_line("from disk", size(row.read_bytes), some(round(row.major_faults or 0), "major fault")))
        return lines

    def _peak(self, row: Row, width: int) -> Lines:
        """The peak, where what ran at it is this row; else the steepest rise that is."""
        found = self.costs.memory[0] if self.costs is not None and self.costs.memory else None
        if found is None:
            return []
        told = [(one, one is found.peak) for one in (found.peak, *found.climbs) if one is not None]
        for climb, is_peak in told:
            if climb.during and row.name in {climb.during[0].stage, climb.during[0].name}:
                return [blank(), *_climb(climb, found, width, is_peak=is_peak)]
        return []

    def _longest(self, row: Row, width: int) -> Lines:
        if self.costs is None:
            return []
        by = INSIDE.get(row.name, "module" if row.name in {"forward.run", "kernel.launch"} else "")
        held = [one for one in (self.costs.table(by) if by else ()) if one.calls and not one.name.startswith("(")][:5]
        lines = [blank(), said(f"the longest by {by}", "f")] if held else []
        for one in held:
            name = cut(said(one.name, "t"), max(8, width - 12), keeps_end=True)
            lines.append(paint("{m|$}  $", milliseconds(round(one.ns)).rjust(9), name))
        return lines

    def _says(self, row: Row) -> str:
        costs = self.costs
        if costs is not None and self.by in OF_FORWARD and costs.is_timed_on_host_only:
            return f"Times are of the launches: {costs.device} was not asked for its own, so there are no rates."
        if self.by in OF_FORWARD:
            return "Bytes are arguments and results, each once; the time is the operator's with all it launched."
        if costs is not None and not costs.memory:
            return "Memory is not recorded in this session: it has no samples. Its time is without what lies inside."
        if row.name == WAITING:
            return "Nothing of this rank ran, and another rank of its process worked: ranks in lockstep take turns."
        if self.by == "stage":
            return "Its own time, without the stages inside it; each moment counts once, all ranks together."
        return "A rise between two looks is shared by time among what ran between them."

    def follow(self, row: Row) -> Leads:
        """The blocks of this stage, or all."""
        if self.costs is None:
            return None
        whole = self.costs.blocks
        block = whole.inner.get(PHASES.get(row.name, ""), whole) if self.by == "stage" else whole
        title = f"{block.name} · {units.duration(block.ns)}"
        return Page(title, zoomed(block, ZOOM_WIDTH))

    def empty(self, width: int) -> Lines:
        """Why there are none."""
        if self.costs is None:
            return [*wrapped("Adding up … the other questions can be asked meanwhile.", width)]
        if nothing := self.nothing_matches(self.total, self.by):
            return nothing
        if self.by in OF_FORWARD:
            says = f"No {self.by}s. There was no forward pass, so there is no time to share out among them."
            return [*wrapped(says, width), paint("{k|v} {m|goes on to the stages}")]
        return [*wrapped(f"No {self.by}s. Nothing was recorded yet, so there is no time to share out.", width)]


def _line(label: str, value: str, more: str = "") -> Text:
    return paint("{m|$}$  {m|$}", label.ljust(15), value.ljust(10), more)


def _parts(row: Row) -> list[tuple[str, float]]:
    told = (("  read", row.read_ns), ("  copy", row.copy_ns), ("  post-process", row.process_ns), ("cpu", row.cpu_ns))
    return [(name, ns) for name, ns in told if ns is not None]


def _climb(climb: Climb, found: ProcessMemory, width: int, *, is_peak: bool) -> Lines:
    first, others = climb.during[0], len(climb.during) - 1
    verb = f"the peak is here, {size(found.peak_bytes)}" if is_peak else f"a rise of {size(climb.bytes)} is here"
    lines = [said(verb, "w"), *wrapped(told_culprit(first), width)]
    more = f", with {others:,} more" if others else ""
    return [*lines, *wrapped(f"between two looks {units.duration(climb.resolution_ns)} apart{more}", width, "m")]
