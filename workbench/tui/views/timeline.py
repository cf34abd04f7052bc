"""What happened: every event in order; a call made alike by all ranks is one row, spans are indented."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from rich.text import Text

from inspectors.probe.events import (
    KernelLaunched,
    LoaderCalled,
    MethodSelected,
    ParameterRegistered,
    ShardSplit,
    SkipDecided,
    StageFailed,
    TensorListed,
    WeightsCreated,
)
from sessions.errors import SessionError
from sessions.filters import parse
from sessions.timeline import Row
from sessions.timeline import Timeline as Folded
from workbench.tui.keymap import hint
from workbench.tui.lens import Lens, Place
from workbench.tui.marks import lanes
from workbench.tui.paint import Lines, paint, said, wrapped
from workbench.tui.views.facts import counted, everything, explained, leads
from workbench.tui.views.view import Leads, Reading, View, blank, fact, head
from workbench.tui.widgets.longlist import Column
from workbench.tui.wording import leaf, milliseconds

GLYPHS = {
    "checkpoint.open": "▤",
    "tensor.read": "↓",
    "weight.map": "→",
    "method.select": "◇",
    "weights.create": "+",
    "weight.load": "■",
    "shard.split": "÷",
    "weights.process": "↻",
    "kernel.select": "◇",
    "kernel.launch": "»",
    "model.ready": "✓",
    "forward.run": "▷",
}
BLOCK = 64


class Pages(Sequence[Row]):
    """Rows of the timeline by number, read in blocks when they come into view."""

    def __init__(self, folded: Folded, numbers: Sequence[int], rank: int | None, now: int) -> None:
        self._folded, self.numbers, self._rank, self._now = folded, numbers, rank, now
        self._blocks: dict[int, list[Row]] = {}

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        block, inside = divmod(range(len(self.numbers))[index], BLOCK)
        if block not in self._blocks:
            numbers = self.numbers[block * BLOCK : (block + 1) * BLOCK]
            self._blocks[block] = self._folded.rows(list(numbers), self._rank, self._now)
        return self._blocks[block][inside]


class Timeline(View):
    """Rows of the folded session; what lies after `now` is dimmed."""

    columns = (
        Column("seq", 6, is_right=True),
        Column("rank", 4),
        Column("event", keeps_end=True),
        Column("shard_id", 9),
        Column("ms", 6, is_right=True),
    )
    follows_end = True
    is_in_time = True

    def __init__(self, reading: Reading, lens: Lens) -> None:
        super().__init__(reading, lens)
        folded = reading.snapshot.timeline
        self.folded, self.problem = folded, ""
        self.total = len(folded) if folded is not None else 0
        self.rows: Sequence[Row] = ()
        if folded is not None:
            self.rows = Pages(folded, self._numbers(folded), lens.rank, reading.snapshot.now)

    def _numbers(self, folded: Folded) -> Sequence[int]:
        text = "exception" if self.lens.is_only_trouble else self.lens.filter
        try:
            query = parse(text) if text else None
        except SessionError as error:
            self.problem = error.what
            return ()
        if query is None and not self.lens.folds:
            return range(len(folded))
        folds = frozenset(number for number in self.lens.folds if isinstance(number, int))
        return folded.visible(folds, query)

    def cells(self, row: Row, width: int) -> Sequence[Text]:
        """Number, lanes, event, shard_id, milliseconds."""
        is_later = (row.position or 0) > self.reading.snapshot.now
        is_failed = any(lane is not None and lane.is_failed for lane in row.lanes)
        seq = said(f"{row.position + 1:,}", "a" if row.position == self.reading.snapshot.now else "f")
        name = self._event(row, is_failed=is_failed)
        if is_later:
            name.stylize("f")
        shard = said(row.shard, "t" if row.shard.startswith("(") else "m")
        return (seq, self._lanes(row), name, shard, said(milliseconds(row.dur_ns) if row.dur_ns != 0 else "", "f"))

    def _lanes(self, row: Row) -> Text:
        now = self.reading.snapshot.now
        states = ""
        for lane in row.lanes:
            if lane is None:
                states += "w" if self.reading.snapshot.is_live and row.is_group else "-"
            elif lane.is_failed:
                states += "x"
            elif lane.position > now:
                states += "w"
            else:
                states += "h" if lane.position == now or lane.is_open else "d"
        return lanes(states)

    def _event(self, row: Row, *, is_failed: bool) -> Text:
        text = Text("  " * row.depth, no_wrap=True, end="")
        if row.kind == "layer":
            text.append("▸ " if row.number in self.lens.folds else "▾ ", "f")
            return Text.assemble(text, said(row.label, "m"))
        glyph = "✗" if is_failed else GLYPHS.get(_stage(row), "•")
        if isinstance(row.body, StageFailed):
            return Text.assemble(text, ("✗ ", "e"), said(leaf(row.body.error)[1] or "exception", "E"))
        is_quiet = isinstance(row.body, ShardSplit)
        text.append(f"{glyph} ", "e" if glyph == "✗" else "f" if is_quiet else "m")
        if is_quiet:
            return Text.assemble(text, said(row.label, "f"), overflow="ellipsis")
        if isinstance(row.body, KernelLaunched):
            operation, module = row.label.rpartition("::")[2], leaf(row.body.module)[1]
            return Text.assemble(text, said(operation, "t"), said(f"  {module}", "f"), overflow="ellipsis")
        if isinstance(row.body, (SkipDecided, MethodSelected)):
            return Text.assemble(text, said(leaf(row.body.module)[1], "t"), said(f"  {_chosen(row.body)}", "m"))
        front, end = leaf(row.label)
        return Text.assemble(text, said(front + "." if front else "", "m"), said(end, "E" if glyph == "✗" else "t"))

    def identity(self, row: Row) -> Hashable:
        """The row's number, which never changes."""
        return row.number

    def row_of(self, identity: Hashable) -> int | None:
        """By search in the ascending numbers."""
        numbers = self.rows.numbers if isinstance(self.rows, Pages) else ()
        if not isinstance(identity, int) or not numbers:
            return None
        low = _at_or_before(numbers, identity)
        return low if numbers[low] == identity else None

    def start(self) -> int:
        """The end of a load that failed, the beginning of any other."""
        outcome = self.reading.snapshot.manifest.outcome
        return len(self.rows) - 1 if outcome is not None and outcome.state in {"failed", "killed"} else 0

    def row_at(self, position: int) -> int:
        """The row in which an event is shown, or the nearest one before it that is in view."""
        numbers = self.rows.numbers if isinstance(self.rows, Pages) else ()
        if self.folded is None or not numbers:
            return 0
        return _at_or_before(numbers, max(0, self.folded.row_of(position)))

    def position(self, row: Row) -> int | None:
        """The event of the rank that is shown."""
        return row.position

    def parameter(self, row: Row) -> str:
        """The parameter of a loader call; everything of a layer."""
        if row.kind == "layer":
            return f"{row.name}.*"
        return str(getattr(row.body, "parameter", "") or "")

    def fold(self, row: Row) -> Hashable | None:
        """The group itself, or the one around a row."""
        if row.is_group:
            return row.number
        return row.parent if isinstance(row.parent, int) and row.parent >= 0 else None

    def is_folded(self, row: Row) -> bool:
        """True for a group that is closed."""
        return row.number in self.lens.folds

    def found(self, needle: str, after: int) -> int | None:
        """Search over the whole timeline, going round."""
        if self.folded is None or not isinstance(self.rows, Pages):
            return None
        query = parse("'" + needle.replace("'", "") + "'")
        number = self.folded.search(query, self.rows.numbers[after])
        if number < 0:
            number = self.folded.search(query, -1)
        return _at_or_before(self.rows.numbers, number) if number >= 0 else None

    def detail(self, row: Row, width: int) -> Lines:
        """What the kind of event asks for; every field is on `i`."""
        if row.kind == "layer" or row.body is None:
            lines = head("layer", row.name or row.label, "", width)
            lines += [blank(), fact("holds", f"{row.count:,} rows")]
            lines.append(fact("took", f"{milliseconds(row.dur_ns)} ms"))
            return [*lines, blank(), self.reading.keys((hint("enlarge", "fold"),))]
        event = self.reading.session.event(row.position)
        if row.count > 1 and isinstance(row.body, (TensorListed, ParameterRegistered)):
            return counted(self.reading.session.page(row.position, row.position + row.count), row.label, width)
        lines = explained(self.reading, event, width)
        return [*lines, *self._alike(row, width), blank(), self.reading.keys(leads(event))]

    def _alike(self, row: Row, width: int) -> Lines:
        there = [(rank, lane) for rank, lane in enumerate(row.lanes) if lane is not None]
        if len(there) < 2:
            return []
        text = "  ".join(f"{rank} #{lane.position + 1:,}" for rank, lane in there)
        return [blank(), said("the same call by rank", "f"), *wrapped(text, width, "m")]

    def follow(self, row: Row) -> Leads:
        """A call leads to its parameter, a decision to its argument, a launch to its kernel."""
        body = row.body
        if isinstance(body, LoaderCalled):
            return Place("parameters", row=body.parameter)
        if isinstance(body, ShardSplit):
            return Place("parameters", row=body.parameter)
        if isinstance(body, (SkipDecided, MethodSelected, WeightsCreated)):
            return Place("decisions", row=body.module)
        if isinstance(body, KernelLaunched):
            return Place("Kernels", position=row.position)
        if isinstance(body, StageFailed):
            return Place("findings")
        parameter = getattr(body, "parameter", "")
        return Place("parameters", row=parameter) if parameter else None

    def recorded(self, row: Row, width: int) -> Lines:
        """The envelope and every field of the event, and of what is inside it."""
        if row.body is None:
            return self.detail(row, width)
        return everything(self.reading, self.reading.session.event(row.position), width)

    def empty(self, width: int) -> Lines:
        """Why there are none."""
        if self.problem:
            return [
                *wrapped(f"✗ {self.problem}", width, "e"),
                paint("{k|Esc} {m|clears the filter}  {k|\\\\} {m|edits it}"),
            ]
        hidden = self.nothing_matches(self.total, "rows")
        if hidden:
            return hidden
        if self.reading.snapshot.is_live:
            return [said("Nothing recorded yet. The host is starting."), paint("{k|l} {m|shows what it prints}")]
        why = "No events. The host ended before it used a traced engine, or the probe was not armed."
        return [*wrapped(why, width), paint("{k|l} {m|shows what the host printed}")]


def _chosen(body: SkipDecided | MethodSelected) -> str:
    if isinstance(body, MethodSelected):
        return body.method.removesuffix("Method")
    return "skipped" if body.is_skipped else "not skipped"


def _stage(row: Row) -> str:
    return row.body.stage if row.body is not None else ""


def _at_or_before(numbers: Sequence[int], wanted: int) -> int:
    low, high = 0, len(numbers) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if numbers[middle] <= wanted:
            low = middle
        else:
            high = middle - 1
    return low
