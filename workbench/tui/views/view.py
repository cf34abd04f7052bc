"""What every question answers: columns, rows, cells, detail; a view is made anew for each snapshot and lens."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from sessions.session import Session
from workbench.tui.keymap import RESTING, Hint
from workbench.tui.lens import Lens, Place
from workbench.tui.paint import Lines, paint, said, wrapped
from workbench.tui.snapshot import Snapshot
from workbench.tui.widgets.longlist import Column


@dataclass(frozen=True)
class Reading:
    """What a view may look at: the open session for its pages, the snapshot for what was folded."""

    session: Session
    snapshot: Snapshot
    keys: Callable[[Sequence[Hint]], Text]

    def event(self, position: int | None) -> str:
        """How an event is named on the screens: `#131`."""
        return "" if position is None or position < 0 else f"#{position + 1:,}"


@dataclass(frozen=True)
class Page:
    """Lines that are worth a page of their own; `line` is the one that must be in view at first."""

    title: str
    lines: Lines
    line: int = 0


Leads = Place | Page | None


class View:
    """One question's answer, ready to be listed. Subclasses fill `rows` and answer for one of them.

    `is_in_time`: its rows stand in the order of time, so that `now` is a place among them; `follows_end`: a live list
    stays on its last row.
    """

    columns: Sequence[Column] = ()
    rows: Sequence[Any] = ()
    hints: Sequence[Hint] = RESTING
    orders: Sequence[str] = ()
    variants: Sequence[str] = ()
    follows_end = False
    is_in_time = False

    def __init__(self, reading: Reading, lens: Lens) -> None:
        self.reading, self.lens = reading, lens

    def cells(self, row: Any, width: int) -> Sequence[Text]:
        """One Text a column; `width` is that of the first column."""
        raise NotImplementedError

    def detail(self, row: Any, width: int) -> Lines:
        """The detail pane: the answer in the first four lines."""
        raise NotImplementedError

    def above(self, width: int) -> Lines:
        """A graphic over the list."""
        return []

    def brief(self, width: int) -> Lines:
        """What stands over the list where there is no room for the graphic: a few lines at most."""
        del width
        return []

    def empty(self, width: int) -> Lines:
        """What would be here, why it is not, and the key that helps."""
        raise NotImplementedError

    def identity(self, row: Any) -> Hashable:
        """What stays the same when the view is made anew."""
        raise NotImplementedError

    def position(self, row: Any) -> int | None:
        """The event this row stands for."""
        return None

    def start(self) -> int:
        """The row to begin at."""
        return 0

    def row_at(self, position: int) -> int:
        """The row in which an event is, or the last one before it."""
        found = 0
        for index, row in enumerate(self.rows):
            at = self.position(row)
            if at is not None and at <= position:
                found = index
        return found

    def row_of(self, identity: Hashable) -> int | None:
        """The row with an identity."""
        return next((n for n, row in enumerate(self.rows) if self.identity(row) == identity), None)

    def found(self, needle: str, after: int) -> int | None:
        """The next row whose text holds `needle`, going round; None when there is none."""
        wanted, total = needle.lower(), len(self.rows)
        order = ((after + 1 + step) % total for step in range(total))
        return next((n for n in order if wanted in self.text(self.rows[n]).lower()), None)

    def text(self, row: Any) -> str:
        """What search looks in."""
        return " ".join(cell.plain for cell in self.cells(row, 200))

    def parameter(self, row: Any) -> str:
        """The parameter a breakpoint on this row would name."""
        return ""

    def follow(self, row: Any) -> Leads:
        """Where Enter leads."""
        return None

    def fold(self, row: Any) -> Hashable | None:
        """What `z` folds at this row."""
        return None

    def is_folded(self, row: Any) -> bool:
        """True when the row hides rows of its own."""
        return False

    def beside(self, row: Any, by: int) -> int | None:
        """The column `by` cells to the right of the chosen one; None where rows have no cells side by side."""
        return None

    def recorded(self, row: Any, width: int) -> Lines:
        """Everything recorded about a row."""
        return self.detail(row, width)

    def trouble_only(self, rows: Sequence[Any], is_trouble: Callable[[Any], bool]) -> Sequence[Any]:
        """The rows, or with `x` only those in trouble."""
        return [row for row in rows if is_trouble(row)] if self.lens.is_only_trouble else rows

    def nothing_matches(self, total: int, noun: str) -> Lines:
        """What to say when the lens hides every row; [] when there was nothing to hide."""
        if not total:
            return []
        if self.lens.filter:
            return [
                paint("0 of $ match  {a|$}", f"{total:,}", self.lens.filter),
                paint("{k|Esc} {m|clears the filter}"),
            ]
        if self.lens.is_only_trouble:
            return [paint("{t|None of $ $ is in trouble.}", f"{total:,}", noun), paint("{k|x} {m|shows all}")]
        return []


def head(kind: str, title: str, below: str, width: int) -> Lines:
    """The first lines of a detail: what kind of thing, its name, where it is."""
    lines = [said(kind, "f"), *wrapped(title, width, "b")]
    return [*lines, said(below, "m")] if below else lines


def fact(label: str, value: object, role: str = "t", indent: int = 7) -> Text:
    """One labelled value."""
    return paint("{m|$}$", label.ljust(indent), said(value, role))


def blank() -> Text:
    """An empty line."""
    return Text(no_wrap=True, end="")
