"""Where did it go: every parameter with its coverage, and which rows of the source it took."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from rich.text import Text

from sessions.checkpoint import header
from sessions.faults import Faults, faults, marked_cells, misplaced_until
from sessions.misplaced import misplaced
from sessions.numerics import numerics_of
from sessions.parameters import ParameterView
from workbench.coverage.wording import counted
from workbench.tui.keymap import hint
from workbench.tui.lens import Lens, Place
from workbench.tui.marks import coverage
from workbench.tui.paint import Lines, paint, said, wrapped
from workbench.tui.views.faultlines import fault_lines, numbered_calls
from workbench.tui.views.findings import SEVERITY
from workbench.tui.views.numbers import numbers
from workbench.tui.views.provenance import provenance, writers
from workbench.tui.views.tree import Row, Tree, coverage_cells, listed
from workbench.tui.views.view import Leads, Page, Reading, View, blank, fact, head
from workbench.tui.widgets.longlist import Column
from workbench.tui.wording import bracketed, dtype, leaf, shape, size, some


class Parameters(View):
    """A tree; folded rows show the worst of what they hold, at its place."""

    columns = (
        Column(" parameter", keeps_end=True, shrinks=4),
        Column("dtype", 5),
        Column("shape", 9),
        Column("coverage", 16),
    )
    hints = (
        hint("list.down list.up", "move"),
        hint("follow", "who wrote"),
        hint("address", "element"),
        hint("trouble", "only gaps"),
        hint("enlarge", "fold"),
        hint("search"),
        hint("rank.previous rank.next", "rank"),
        hint("help"),
    )
    orders = ("tree", "largest first", "least covered first")

    def __init__(self, reading: Reading, lens: Lens) -> None:
        super().__init__(reading, lens)
        shown = [one for one in reading.snapshot.parameters if lens.rank in {None, one.rank}]
        self.total = len({one.name for one in shown})
        self._flags = _flags(reading)
        self._at_now = _at_now(reading)
        self._misplaced = misplaced(reading.session)
        needle = lens.filter.strip("*\"' ").lower()
        kept = [one for one in shown if needle in one.name.lower()]
        if lens.is_only_trouble:
            wrong = {
                one.name for one in kept if self._is_wrong(one.name, coverage_cells(_alone(one), cells_of=self._cells))
            }
            kept = [one for one in kept if one.name in wrong]
        is_flat = bool(needle or lens.is_only_trouble or lens.order % 3)
        self.rows = _flat(kept, lens.order % 3) if is_flat else _listed(reading, lens, kept)

    def _cells(self, view: ParameterView, width: int) -> str:
        """Amber where it was filled from elsewhere."""
        return marked_cells(view, misplaced_until(view, self._misplaced), width)

    def _is_wrong(self, name: str, cells: str) -> bool:
        return name in self._flags or any(cell in "02!" for cell in cells)

    def cells(self, row: Row, width: int) -> Sequence[Text]:
        """Name (in the accent where `now` is), dtype and local shape, coverage and a flag."""
        label = Text("  " * row.depth, no_wrap=True, end="")
        is_here = row.path == self._at_now or (
            row.is_branch and not row.is_open and self._at_now.startswith(f"{row.path}.")
        )
        if row.is_branch:
            label.append("▾ " if row.is_open else "▸ ", "f")
        label.append_text(said(row.name, "A" if is_here else "m" if row.is_branch else "t"))
        bar = coverage(coverage_cells(row, cells_of=self._cells))
        bar.append_text(self._flag(row))
        if row.is_branch:
            return (label, blank(), said(f"{len(row.held)} in", "f"), bar)
        one = row.one
        return (label, said(dtype(one.dtype), "m"), said(shape(one.shape), "m"), bar)

    def _flag(self, row: Row) -> Text:
        names = [views[0].name for views in row.held]
        severities = {self._flags[name] for name in names if name in self._flags}
        for severity in ("error", "warning"):
            if severity in severities:
                glyph, role = SEVERITY[severity]
                return Text(f" {glyph}", role)
        return Text()

    def identity(self, row: Row) -> Hashable:
        """The dotted path."""
        return row.path

    def row_of(self, identity: Hashable) -> int | None:
        """The row of a path, or of the nearest folded row that holds it."""
        found = super().row_of(identity)
        path = str(identity)
        while found is None and "." in path:
            path = path.rpartition(".")[0]
            found = super().row_of(path)
        return found

    def position(self, row: Row) -> int | None:
        """Where the parameter was registered."""
        return None if row.is_branch else row.one.position

    def parameter(self, row: Row) -> str:
        """Its full name, or all below a branch."""
        return f"{row.path}.*" if row.is_branch else row.path

    def fold(self, row: Row) -> Hashable | None:
        """The branch itself, or the one around a leaf."""
        if row.is_branch:
            return row.path
        branches = [one.path for one in self.rows if one.is_branch and row.path.startswith(one.path + ".")]
        return branches[-1] if branches else None

    def is_folded(self, row: Row) -> bool:
        """True for a closed branch."""
        return row.is_branch and not row.is_open

    def detail(self, row: Row, width: int) -> Lines:
        """How much was written, which rows of the source, who wrote."""
        if row.is_branch:
            return self._module(row, width)
        views = row.held[0]
        one = views[0]
        front, end = leaf(one.name, 2)
        ranks = f"rank {one.rank}" if len(views) == 1 else f"{len(views)} ranks"
        lines = head(f"parameter · {ranks}", end, front, width)
        lines.append(
            paint("{m|$ $}  {f|$}", one.dtype.removeprefix("torch."), bracketed(one.shape), size(one.size_bytes))
        )
        lines += [blank(), *self._written(row)]
        lines += fault_lines(self.reading, *self._fault(row), width)
        lines += [*provenance(views, header(self.reading.session), width)]
        lines += self._found(one.name)
        lines += numbers(numerics_of(self.reading.session).get((one.name, one.rank), ()), width)
        keys = (hint("follow", "who wrote"), hint("address", "element"), hint("rank.next", "rank"))
        return [*lines, blank(), self.reading.keys(keys)]

    def _fault(self, row: Row) -> tuple[Faults | None, str]:
        """What is wrong with the first rank in which anything is, and of several ranks those that are alike."""
        views = row.held[0]
        found = faults(self.reading.session, views, self.reading.snapshot.parameters)
        first = next((one for one in found if not one.is_clean), None)
        if first is None or len(views) == 1:
            return first, ""
        alike = [one.view.rank for one in found if one.boxes == first.boxes]
        return first, "each rank" if len(alike) == len(views) else f"rank {counted(alike)}"

    def evidence(self, row: Row, number: int) -> Place | None:
        """The call that a number of the detail stands for."""
        fault = None if row.is_branch else self._fault(row)[0]
        calls = numbered_calls(fault) if fault is not None else ()
        return Place("timeline", position=calls[number - 1]) if 0 < number <= len(calls) else None

    def _written(self, row: Row) -> Lines:
        lines: Lines = []
        for view in row.held[0]:
            label = f"rank {view.rank}" if len(row.held[0]) > 1 else "written"
            lines.append(paint("{m|$}  $", label, written(view)))
        texts = {line.plain.partition("  ")[2] for line in lines}
        if len(lines) > 1 and len(texts) == 1:
            return [paint("{m|written}  $ {m|each}", written(row.one))]
        return lines

    def _found(self, name: str) -> Lines:
        found = [one for one in self.reading.snapshot.findings if one.parameter == name or one.module == leaf(name)[0]]
        lines = [paint("{e|$} {m|$}", one.id, one.title) for one in found[:4]]
        return [blank(), *lines] if lines else []

    def _module(self, row: Row, width: int) -> Lines:
        front, end = leaf(row.path, 2 if row.path.rpartition(".")[2].isdigit() else 1)
        lines = head("module", end, front, width)
        lines += [blank(), fact("holds", some(len(row.held), "parameter"), indent=9)]
        facts = _summed(row)
        lines.append(fact("bytes", size(facts.size_bytes), indent=9))
        lines.append(fact("elements", f"{facts.elements:,}", indent=9))
        is_final = facts.is_final
        lines.append(_total("never" if is_final else "not yet", facts.never, "e" if is_final else "m"))
        lines.append(_total("twice", facts.twice, "w"))
        word = "open" if not row.is_open else "close"
        return [*lines, blank(), self.reading.keys((hint("follow", word),))]

    def follow(self, row: Row) -> Leads:
        """The calls that wrote it."""
        if row.is_branch:
            return None
        lines = [*head("who wrote", row.path, "", 110), blank()]
        return Page("who wrote", [*lines, *writers(row.held[0], header(self.reading.session), 110)])

    def call(self, row: Row) -> Place | None:
        """The first loader call that wrote a parameter."""
        calls = [] if row.is_branch else [position for view in row.held[0] for position in view.calls]
        return Place("timeline", position=min(calls)) if calls else None

    def recorded(self, row: Row, width: int) -> Lines:
        """Every field of the parameter, rank by rank."""
        lines = self.detail(row, width)
        for view in row.held[0] if not row.is_branch else ():
            lines += [blank(), said(f"rank {view.rank}", "f")]
            facts = (("class", view.parameter_class), ("loader", view.loader), ("where", view.where))
            lines += [fact(label, text) for label, text in facts]
            lines.append(fact("calls", " ".join(self.reading.event(p) for p in view.calls) or "none"))
        return lines

    def empty(self, width: int) -> Lines:
        """Why there are none."""
        hidden = self.nothing_matches(self.total, "parameters")
        why = "No parameters. The load ended before the model was built"
        return hidden or [
            *wrapped(f"{why}, or its engine's loader is not traced.", width),
            paint("{k|t} {m|shows where}"),
        ]


def _listed(reading: Reading, lens: Lens, kept: Sequence[ParameterView]) -> list[Row]:
    """The rows of the tree of the last time, in which only what changed since is worked out anew."""
    tree = reading.session.kept(f"parameter tree {lens.rank}", Tree)
    return list(listed(tree.grown(kept), lens.folds))


def _at_now(reading: Reading) -> str:
    """The parameter that the event at `now` is about; "" at the end, where nothing is being done to one."""
    now = reading.snapshot.now
    if not 0 <= now < reading.snapshot.count - 1:
        return ""
    return str(getattr(reading.session.event(now).body, "parameter", ""))


def _alone(one: ParameterView) -> Row:
    return Row(0, "", "", ((one,),))


def _flat(kept: Sequence[ParameterView], order: int) -> list[Row]:
    groups: dict[str, list[ParameterView]] = {}
    for one in kept:
        groups.setdefault(one.name, []).append(one)
    rows = [Row(0, name, name, (tuple(views),)) for name, views in groups.items()]
    if order == 1:
        rows.sort(key=lambda row: -row.one.size_bytes)
    if order == 2:
        rows.sort(key=lambda row: -sum(cell in "0." for cell in coverage_cells(row)))
    return rows


def _flags(reading: Reading) -> dict[str, str]:
    """The worst severity of a finding that names a parameter or its module."""
    flags: dict[str, str] = {}
    names = {one.name for one in reading.snapshot.parameters}
    for finding in reversed(reading.snapshot.findings):
        if finding.severity not in {"error", "warning"}:
            continue
        if finding.parameter and flags.get(finding.parameter) != "error":
            flags[finding.parameter] = finding.severity
        elif not finding.parameter and finding.module:
            flags.update({name: finding.severity for name in names if leaf(name)[0] == finding.module})
    return flags


def written(view: ParameterView) -> Text:
    """`192 of 192, once`."""
    facts = view.coverage
    if not facts.is_known or facts.never_written is None:
        if view.unknown_because and view.writes:
            return said(view.unknown_because, "w")
        calls = len(view.calls)
        return paint("{m|$; elements need level} ledger", some(calls, "loader call"))
    filled = facts.elements - facts.never_written
    role = "t" if not facts.never_written else "e" if facts.is_final else "m"
    text = paint("{" + role + "|$ of $}", f"{filled:,}", f"{facts.elements:,}")
    if facts.written_twice:
        return Text.assemble(text, paint("  {w|▲ $ twice}", f"{facts.written_twice:,}"))
    return Text.assemble(text, said(", once" if filled else ", nothing yet" if not facts.is_final else "", "m"))


@dataclass(frozen=True)
class _Sums:
    """Of all parameters of a module; a count is None when that of one of them is not recorded."""

    size_bytes: int
    elements: int
    never: int | None
    twice: int | None
    is_final: bool


def _summed(row: Row) -> _Sums:
    kept = row.branch.kept if row.branch is not None else {}
    if "sums" not in kept:
        views = [view for held in row.held for view in held]
        said = [view.coverage for view in views]
        kept["sums"] = _Sums(
            sum(view.size_bytes for view in views),
            sum(one.elements for one in said),
            _sum([one.never_written for one in said]),
            _sum([one.written_twice for one in said]),
            all(one.is_final for one in said),
        )
    return kept["sums"]  # type: ignore[no-any-return]


def _sum(counts: Sequence[int | None]) -> int | None:
    return None if None in counts else sum(one or 0 for one in counts)


def _total(label: str, total: int | None, role: str) -> Text:
    if total is None:
        return fact(label, "not recorded at this level", "m", 9)
    return fact(label, f"{total:,} elements", role if total else "m", 9)
