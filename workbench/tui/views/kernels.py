"""What ran: ops and launches by layer, how often, how long, and their share of the forward passes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from rich.text import Text

from inspectors.probe.events import KernelLaunched
from workbench.tui.kernelfold import Kernel
from workbench.tui.keymap import hint
from workbench.tui.lens import Lens, Place
from workbench.tui.marks import share
from workbench.tui.paint import Lines, cut, paint, said, wrapped
from workbench.tui.views.launch import launch_facts
from workbench.tui.views.view import Leads, Reading, View, blank, fact, head
from workbench.tui.widgets.longlist import Column
from workbench.tui.wording import leaf, microseconds, some


@dataclass(frozen=True)
class Row:
    """A kernel of a layer, or the layer that holds them."""

    layer: str
    kernel: Kernel | None
    launches: int
    total_ns: int


class Kernels(View):
    """Launches of one op in one module are one row; `z` folds a layer."""

    columns: Sequence[Column] = (
        Column("  kernel"),
        Column("grid", 12, is_right=True),
        Column("calls", 6, is_right=True),
        Column("µs", 9, is_right=True),
        Column("share", 8),
    )
    hints = (
        hint("list.down list.up", "move"),
        hint("order"),
        hint("enlarge", "fold layer"),
        hint("follow", "first launch"),
        hint("search"),
        hint("rank.previous rank.next", "rank"),
        hint("help"),
    )
    orders = ("as run", "slowest first", "by op, slowest first")

    def __init__(self, reading: Reading, lens: Lens) -> None:
        super().__init__(reading, lens)
        found = [one for one in reading.snapshot.kernels if lens.rank in {None, one.rank}]
        needle = lens.filter.strip("*\"' ").lower()
        kept = [one for one in found if needle in f"{one.name} {one.module} {one.launcher}".lower()]
        self.total = len(found)
        merged = _merged(kept)
        self.whole_ns = sum(one.total_ns for one in merged) or 1
        self.longest_ns = max((one.total_ns for one in merged), default=0) or 1
        if not any(one.grid for one in merged):
            self.columns = tuple(one for one in self.columns if one.title != "grid")
        self.rows = self._by_layer(merged) if lens.order % 3 == 0 else _flat(merged, lens.order % 3)

    def _by_layer(self, merged: Sequence[Kernel]) -> list[Row]:
        layers: dict[str, list[Kernel]] = {}
        for one in merged:
            layers.setdefault(one.layer, []).append(one)
        rows: list[Row] = []
        for layer, held in layers.items():
            rows.append(Row(layer, None, sum(k.launches for k in held), sum(k.total_ns for k in held)))
            if layer not in self.lens.folds:
                rows += [Row(layer, one, one.launches, one.total_ns) for one in held]
        return rows

    def cells(self, row: Row, width: int) -> Sequence[Text]:
        """Op and module, grid (when there is one), calls, time, share of the longest."""
        return tuple(
            cell for cell, column in zip(self._five(row, width), Kernels.columns, strict=True) if column in self.columns
        )

    def _five(self, row: Row, width: int) -> Sequence[Text]:
        timed = said(microseconds(row.total_ns), "f" if row.kernel is None else "m")
        bar = share(row.total_ns, self.longest_ns, 8) if row.kernel is not None else blank()
        if row.kernel is None:
            mark = "▸ " if row.layer in self.lens.folds else "▾ "
            return (paint("{f|$}{m|$}", mark, row.layer or "outside the layers"), blank(), blank(), timed, bar)
        one = row.kernel
        grid = " × ".join(f"{size:,}" for size in one.grid)
        name = paint("  $  {f|$}", one.name.rpartition("::")[2], _module(one, is_alone=bool(self.lens.order % 3)))
        return (cut(name, width), said(grid, "m"), said(f"{one.launches:,}", "f"), timed, bar)

    def identity(self, row: Row) -> Hashable:
        """Layer, op and module."""
        return (row.layer, row.kernel.name, row.kernel.module, row.kernel.shapes) if row.kernel else row.layer

    def position(self, row: Row) -> int | None:
        """The first launch."""
        return row.kernel.position if row.kernel else None

    def fold(self, row: Row) -> Hashable | None:
        """The layer."""
        return row.layer

    def is_folded(self, row: Row) -> bool:
        """True for a layer that is closed."""
        return row.kernel is None and row.layer in self.lens.folds

    def detail(self, row: Row, width: int) -> Lines:
        """What was launched, with what, how often and how long."""
        if row.kernel is None:
            lines = head("layer", row.layer or "outside the layers", "", width)
            lines += [blank(), fact("calls", f"{row.launches:,}"), fact("took", f"{microseconds(row.total_ns)} µs")]
            return [*lines, paint("{m|share  $ %}", f"{100 * row.total_ns / self.whole_ns:.1f}")]
        one = row.kernel
        lines = head(f"kernel.launch · {one.launcher} · {one.phase}", one.name, one.module or one.layer, width)
        lines += [blank()]
        lines += _shapes("in", one.shapes, width) + _shapes("out", one.outputs, width)
        if one.grid:
            lines.append(fact("grid", " × ".join(f"{size:,}" for size in one.grid)))
        if one.options:
            lines += wrapped(one.options, width, "m")
        body = self.reading.session.event(one.position).body
        lines += launch_facts(body, width) if isinstance(body, KernelLaunched) else []
        mean = one.total_ns // max(1, one.launches)
        lines += [blank(), fact("calls", some(one.launches, "launch", "launches"))]
        lines.append(paint("{m|took}   $ µs {m|each,} $ µs {m|in all}", microseconds(mean), microseconds(one.total_ns)))
        if one.device_ns:
            lines.append(paint("       $ µs {m|on the device}", microseconds(one.device_ns)))
        lines.append(paint("{m|share}  $ %", f"{100 * one.total_ns / self.whole_ns:.1f}"))
        lines.append(fact("first", self.reading.event(one.position)))
        return [*lines, blank(), self.reading.keys((hint("follow", "launch in the timeline"), hint("order")))]

    def follow(self, row: Row) -> Leads:
        """The launch in the timeline."""
        return Place("timeline", position=row.kernel.position) if row.kernel else None

    def recorded(self, row: Row, width: int) -> Lines:
        """The first launch as it was recorded."""
        if row.kernel is None:
            return self.detail(row, width)
        event = self.reading.session.event(row.kernel.position)
        lines = self.detail(row, width)
        if isinstance(event.body, KernelLaunched):
            lines += [blank(), *(fact(name, value) for name, value in vars(event.body).items())]
        return lines

    def empty(self, width: int) -> Lines:
        """Why there are none."""
        hidden = self.nothing_matches(self.total, "kernels")
        if hidden:
            return hidden
        outcome = self.reading.snapshot.manifest.outcome
        if self.reading.snapshot.is_live:
            return [said("No kernels yet. The load has not reached forward."), paint("{k|t} {m|shows where it is}")]
        ended = (
            "The load failed before forward" if outcome and outcome.state != "ok" else "No forward pass was recorded"
        )
        return [*wrapped(f"No kernels. {ended}.", width), paint("{k|t} {m|shows where}")]


def _module(one: Kernel, *, is_alone: bool) -> str:
    inside = one.module.removeprefix(one.layer).strip(".")
    layer = f"{leaf(one.layer, 2)[1]} " if is_alone and one.layer else ""
    return layer + leaf(inside)[1]


def _shapes(label: str, shapes: Sequence[str], width: int) -> Lines:
    lines: Lines = []
    for number, shape in enumerate(shapes[:6]):
        lines.append(fact(label if not number else "", cut(said(shape), width - 7)))
    if len(shapes) > 6:
        lines.append(said(f"       and {len(shapes) - 6} more", "m"))
    return lines


def _merged(found: Sequence[Kernel]) -> list[Kernel]:
    """Ranks, and the phases of one op in one module, laid together; first launch first."""
    groups: dict[tuple[str, str, str], list[Kernel]] = {}
    for one in found:
        groups.setdefault((one.layer, one.module, one.name), []).append(one)
    return [Kernel.joined(group) for group in groups.values()]


def _flat(merged: Sequence[Kernel], order: int) -> list[Row]:
    if order == 2:
        by_op: dict[str, list[Kernel]] = {}
        for one in merged:
            by_op.setdefault(one.name, []).append(one)
        merged = [Kernel.joined(group) for group in by_op.values()]
    rows = [Row(one.layer, one, one.launches, one.total_ns) for one in merged]
    return sorted(rows, key=lambda row: -row.total_ns)
