"""What the host printed: its text unchanged, with a bar at the line that was last at `now`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Sequence

from rich.text import Text

from sessions.hostlog import LogLine
from sessions.session import Session
from workbench.tui.keymap import hint
from workbench.tui.lens import Lens, Place
from workbench.tui.paint import Lines, paint, said, wrapped
from workbench.tui.views.view import Leads, Reading, View, blank, fact, head
from workbench.tui.widgets.longlist import Column
from workbench.tui.wording import duration

BLOCK = 64


class LogLines(Sequence[LogLine]):
    """Lines of the log by number, read in blocks when they come into view."""

    def __init__(self, session: Session, numbers: Sequence[int]) -> None:
        self._session, self.numbers = session, numbers
        self._blocks: dict[int, dict[int, LogLine]] = {}

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> LogLine:  # type: ignore[override]
        number = self.numbers[index]
        block = number // BLOCK
        if block not in self._blocks:
            found = self._session.log_lines(block * BLOCK, (block + 1) * BLOCK)
            self._blocks[block] = {line.number: line for line in found}
        return self._blocks[block].get(number, LogLine(number, None, ""))


class Log(View):
    """One row a line; `G` follows a growing one."""

    columns = (Column("line", 6, is_right=True), Column(" ", 1), Column("host's output"))
    hints = (
        hint("list.down list.up", "move"),
        hint("follow", "event at this line"),
        hint("search"),
        hint("filter"),
        hint("list.last", "end"),
        hint("help"),
    )
    follows_end = True
    is_in_time = True

    def __init__(self, reading: Reading, lens: Lens) -> None:
        super().__init__(reading, lens)
        session, self.total = reading.session, reading.snapshot.log_count
        numbers: Sequence[int] = range(self.total)
        needle = lens.filter.strip("*\"' ").lower()
        if needle:
            numbers = [line.number for line in session.log_lines(0, self.total) if needle in line.text.lower()]
        self.rows = LogLines(session, numbers)
        self.now_line = _line_at_now(reading)

    def start(self) -> int:
        """The line that was last at `now`."""
        return self._row_of_line(self.now_line)

    def cells(self, row: LogLine, width: int) -> Sequence[Text]:
        """Number, bar, text; what came after `now` is quiet."""
        is_later = row.number > self.now_line >= 0
        bar = said("┃", "a") if row.number == self.now_line else blank()
        return (said(f"{row.number + 1:,}", "f"), bar, said(row.text.expandtabs(4), "f" if is_later else "t"))

    def identity(self, row: LogLine) -> Hashable:
        """The line's number."""
        return row.number

    def detail(self, row: LogLine, width: int) -> Lines:
        """The whole line, when it came, and what the load was doing."""
        lines = head("host log", f"line {row.number + 1:,} of {self.total:,}", "", width)
        lines += [blank(), *wrapped(row.text.expandtabs(4), width)]
        position = self._event_at(row)
        if position is not None:
            event = self.reading.session.event(position)
            first = self.reading.session.event(0)
            lines += [blank(), fact("came", f"{duration(max(0, (row.t_ns or 0) - first.t_ns))} after the first event")]
            lines += [fact("during", f"{self.reading.event(position)} {event.kind}")]
            lines += [blank(), self.reading.keys((hint("follow", "that event"),))]
        return lines

    def _event_at(self, row: LogLine) -> int | None:
        return last_before(self.reading.session, row.t_ns) if row.t_ns is not None else None

    def follow(self, row: LogLine) -> Leads:
        """The event that was last when the line came."""
        position = self._event_at(row)
        return Place("timeline", position=position) if position is not None else None

    def row_at(self, position: int) -> int:
        """The line that was last at an event."""
        event = self.reading.session.event(position)
        return self._row_of_line(self.reading.session.log_line_at(event.t_ns))

    def _row_of_line(self, number: int) -> int:
        """The row of a line, or, where a filter hides it, of the last one before it."""
        numbers = self.rows.numbers if isinstance(self.rows, LogLines) else ()
        return max(0, bisect_right(numbers, number) - 1)

    def empty(self, width: int) -> Lines:
        """Why there is none."""
        hidden = self.nothing_matches(self.total, "lines")
        why = "No log. The host printed nothing, or it was started outside the workbench, which keeps what it starts."
        return hidden or [*wrapped(why, width), paint("{k|t} {m|shows what it did}")]


def _line_at_now(reading: Reading) -> int:
    snapshot = reading.snapshot
    if snapshot.now < 0 or snapshot.now >= snapshot.count - 1:
        return snapshot.log_count - 1
    return reading.session.log_line_at(reading.session.event(snapshot.now).t_ns)


def last_before(session: Session, t_ns: int) -> int | None:
    """The position of the last event that had begun at a time; None when none had."""
    low, high = 0, len(session) - 1
    if high < 0 or session.event(0).t_ns > t_ns:
        return None
    while low < high:
        middle = (low + high + 1) // 2
        if session.event(middle).t_ns <= t_ns:
            low = middle
        else:
            high = middle - 1
    return low
