"""What did it cost: time by stage, from the session's summary."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from rich.text import Text

from sessions.spine import span_ns, stages
from sessions.summary import StageTime
from workbench.tui.keymap import hint
from workbench.tui.lens import Lens
from workbench.tui.marks import share
from workbench.tui.paint import Lines, paint, said, wrapped
from workbench.tui.plots import Box, icicle
from workbench.tui.views.view import Reading, View, blank, fact, head
from workbench.tui.widgets.longlist import Column
from workbench.tui.wording import duration, milliseconds, some

BAR = 16


class Costs(View):
    """One row a stage, with the time from its first start to its last end."""

    columns = (
        Column(" stage"),
        Column("events", 9, is_right=True),
        Column("ms", 10, is_right=True),
        Column("share", 16),
    )
    hints = (
        hint("list.down list.up", "move"),
        hint("order"),
        hint("look.timeline"),
        hint("look.Kernels"),
        hint("help"),
    )
    orders = ("as run", "slowest first")

    def __init__(self, reading: Reading, lens: Lens) -> None:
        super().__init__(reading, lens)
        summary = reading.snapshot.summary
        kept = [one for one in summary.stages if one.count] if summary is not None else []
        self.rows = sorted(kept, key=lambda one: -one.ns) if lens.order % 2 else kept
        self.whole_ns = max((one.ns for one in kept), default=0) or 1
        outcome = reading.snapshot.manifest.outcome
        self.load_ns = int(outcome.duration_s * 1e9) if outcome is not None else 0

    def above(self, width: int) -> Lines:
        """The stages over the session, each as wide as it lasted."""
        named = stages(self.reading.session)
        if not named:
            return []
        begin, end = span_ns(self.reading.session)
        took_ns = {row.name: row.ns for row in self.rows}
        nexts = [at for at, _ in named[1:]] + [1.0]
        boxes = [
            Box(at, min(upto, at + took_ns.get(name, 0) / max(1, end - begin)), name)
            for (at, name), upto in zip(named, nexts, strict=True)
        ]
        took = f"stages over the session, {duration(self.load_ns)}" if self.load_ns else "stages over the session"
        return [said(took, "f"), *icicle([boxes], width), blank()]

    def cells(self, row: StageTime, width: int) -> Sequence[Text]:
        """Name, events, time, share of the longest."""
        lit = row.ns == self.whole_ns
        return (
            said(f" {row.name}", "b" if lit else "t"),
            said(f"{row.count:,}", "f"),
            said(milliseconds(row.ns), "t" if lit else "m"),
            share(row.ns, self.whole_ns, BAR, "t" if lit else "m"),
        )

    def identity(self, row: StageTime) -> Hashable:
        """The stage's name."""
        return row.name

    def detail(self, row: StageTime, width: int) -> Lines:
        """Time, share and rate; memory is said to be missing."""
        lines = head("stage", row.name, "", width)
        lines += [blank(), fact("time", f"{milliseconds(row.ns)} ms"), fact("events", some(row.count, "event"))]
        if self.load_ns:
            lines.append(paint("{m|share}  $ % {m|of the host's life}", f"{100 * row.ns / self.load_ns:.1f}"))
        says = "From the first start to the last end of the stage, all ranks together; stages may overlap."
        missing = "Memory is not recorded in this session: its events hold times, not bytes in use."
        return [*lines, blank(), *wrapped(says, width, "m"), blank(), *wrapped(missing, width, "m")]

    def empty(self, width: int) -> Lines:
        """Why there are none."""
        return [*wrapped("No stages. Nothing was recorded yet, so there is no time to share out.", width)]
