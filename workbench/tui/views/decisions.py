"""Why this method: per module what was built, what the skip list said, and what the checkpoint's header says."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from rich.text import Text

from sessions.decisions import DecisionView, by_ranks
from workbench.tui.keymap import hint
from workbench.tui.lens import Lens
from workbench.tui.paint import Lines, cut, paint, said, wrapped
from workbench.tui.views.source import source_page
from workbench.tui.views.view import Leads, Page, Reading, View, blank, head
from workbench.tui.widgets.longlist import Column
from workbench.tui.wording import bracketed, dtype, leaf, short_path


@dataclass(frozen=True)
class Row:
    """One module's decision, with the ranks that decided alike."""

    one: DecisionView
    ranks: tuple[int, ...]


class Decisions(View):
    """One row a module; ranks get rows of their own only when they differ."""

    columns = (Column("  module", keeps_end=True), Column("built", 6), Column("matched", 8), Column("header", 6))
    hints = (
        hint("list.down list.up", "move"),
        hint("follow", "rule's code"),
        hint("trouble", "contradictions"),
        hint("inspect", "ignore list"),
        hint("search"),
        hint("help"),
    )
    orders = ("as decided", "by module", "contradictions first")

    def __init__(self, reading: Reading, lens: Lens) -> None:
        super().__init__(reading, lens)
        merged = _merged([one for one in reading.snapshot.decisions if lens.rank in {None, one.rank}])
        self.total = len(merged)
        self.rows = _ordered(self.trouble_only(_matching(merged, lens.filter), _is_contradiction), lens.order % 3)

    def start(self) -> int:
        """The first contradiction."""
        return next((n for n, row in enumerate(self.rows) if row.one.is_contradiction), 0)

    def cells(self, row: Row, width: int) -> Sequence[Text]:
        """Vermilion where what was built and the header contradict."""
        one, is_wrong = row.one, row.one.is_contradiction
        front, end = leaf(one.module.removeprefix("model."))
        name = said("✗ " if is_wrong else "  ", "e")
        name = Text.assemble(name, said(front + "." if front else "", "m"), said(end, "E" if is_wrong else "t"))
        if _position(one) > self.reading.snapshot.now:
            name.stylize("f")
        is_plain = one.built == "as is"
        header = dtype(one.header_dtype)
        return (
            name,
            said(dtype(one.built), "m" if is_plain else "t"),
            said(matched(one), "m"),
            said(header, "e" if is_wrong else "m"),
        )

    def identity(self, row: Row) -> Hashable:
        """Module and ranks."""
        return row.one.module

    def position(self, row: Row) -> int | None:
        """The event in which it was decided."""
        return _position(row.one)

    def row_at(self, position: int) -> int:
        """The row of the decision made at an event, else the last decision before it."""
        module = next(
            (one.module for one in self.reading.snapshot.decisions if position in {one.position, one.method_position}),
            None,
        )
        found = self.row_of(module) if module is not None else None
        return super().row_at(position) if found is None else found

    def detail(self, row: Row, width: int) -> Lines:
        """A numbered argument, then the evidence against it."""
        one = row.one
        front, end = leaf(one.module)
        lines = head("decision · is it skipped?" if one.position >= 0 else "method", end, front, width)
        lines += [_verdict(one), *argument(one, width), *_evidence(one, width), *_kernels(one, width)]
        if self.lens.rank is None and len(row.ranks) < len({d.rank for d in self.reading.snapshot.decisions}):
            lines += [blank(), paint("{w|only on rank $}", ", ".join(str(rank) for rank in row.ranks))]
        lines += self._led_to(one)
        return [*lines, blank(), self.reading.keys((hint("follow", "rule's code"), hint("inspect", "ignore list")))]

    def _led_to(self, one: DecisionView) -> Lines:
        found = [f for f in self.reading.snapshot.findings if f.module == one.module]
        lines = [paint("{m|finding} {e|$} {m|$}", f.id, f.title) for f in found]
        return [blank(), *lines] if lines else []

    def follow(self, row: Row) -> Leads:
        """The rule's own code at the line that decided."""
        one = row.one
        why = [*head("the rule that decided", one.module, "", 100), *argument(one, 100)]
        return source_page("rule's code", one.where, why)

    def recorded(self, row: Row, width: int) -> Lines:
        """The ignore list, with the modules each entry matched; 0 is amber."""
        one = row.one
        lines = [*head("ignore list", one.module, f"{one.rule}  {one.where}", width), blank()]
        counts = [sum(o.matched_entry == n for o in self.reading.snapshot.decisions) for n in range(len(one.ignored))]
        for number, (entry, count) in enumerate(zip(one.ignored, counts, strict=True)):
            marker = "▌" if number == one.matched_entry else " "
            role = "t" if count else "w"
            lines.append(paint("{a|$}{f|$}  $  {" + role + "|$}", marker, f"{number:>3}", f"{count:>4} matches", entry))
        return [*lines, *([] if one.ignored else [said("the list is empty", "m")])]

    def empty(self, width: int) -> Lines:
        """Why there are none."""
        hidden = self.nothing_matches(self.total, "decisions")
        why = "No decisions. The load ended before a layer asked its quantization config, or the engine's skip rule is"
        return hidden or [*wrapped(f"{why} not traced.", width), paint("{k|t} {m|shows how far it came}")]


def _is_contradiction(row: Row) -> bool:
    return row.one.is_contradiction


def _position(one: DecisionView) -> int:
    return one.position if one.position >= 0 else one.method_position


def _merged(found: Sequence[DecisionView]) -> list[Row]:
    return [Row(one, ranks) for one, ranks in by_ranks(found)]


def _matching(rows: list[Row], text: str) -> list[Row]:
    needle = text.strip("*\"' ").lower()
    return [row for row in rows if needle in f"{row.one.module} {row.one.method} {row.one.built}".lower()]


def _ordered(rows: Sequence[Row], order: int) -> Sequence[Row]:
    if order == 0:
        return rows
    if order == 1:
        return sorted(rows, key=lambda row: row.one.module)
    return sorted(rows, key=lambda row: not row.one.is_contradiction)


def matched(one: DecisionView) -> str:
    """`entry 4`, `0 of 22`, or nothing when no list was asked."""
    if one.position < 0:
        return ""
    return f"entry {one.matched_entry}" if one.matched_entry >= 0 else f"0 of {len(one.ignored)}"


def _verdict(one: DecisionView) -> Text:
    header = dtype(one.header_dtype) or "unknown"
    if one.is_contradiction and one.is_built_quantized:
        return paint("{e|✗ quantized here, $ in the checkpoint}", header)
    if one.is_contradiction:
        return paint("{e|✗ built as it is, quantized in the checkpoint}")
    if one.is_skipped:
        return paint("{m|stays as it is, $ in the checkpoint}", header)
    return paint("{m|built $, $ in the checkpoint}", dtype(one.built) or "as its method says", header)


def argument(one: DecisionView, width: int) -> Lines:
    """What was expanded, what was looked for, and what followed."""
    if one.position < 0:
        return [blank(), *_therefore(one, width, "")]
    own = leaf(one.module)[1]
    tried = [name for name in one.tried if name != one.module]
    lines: Lines = []
    number = 1
    if one.expansion_source in {"model", "fallback"} and tried:
        lines += [blank(), paint("{f|1}  expanded into its parts"), *_expanded(own, tried)]
        told = "the fallback table, not the model" if one.expansion_source == "fallback" else "the model's own table"
        role = "w" if one.expansion_source == "fallback" else "m"
        lines.append(paint("   {" + role + "|from $}", told))
        number = 2
    lines += [blank(), paint("{f|$}  looked for in the ignore list", number)]
    for name in one.tried or (one.module,):
        lines.append(_tried(name, one, width))
    lines += [cut(paint("   {m|by $}", short_path(one.where)), width)] if one.where else []
    return [*lines, blank(), *_therefore(one, width, str(number + 1))]


def _expanded(own: str, tried: Sequence[str]) -> Lines:
    parts = [leaf(name)[1] for name in tried]
    first = paint("   $ {f|→} $", own, parts[0])
    return [first, *(paint("   {f|$ →} $", " " * len(own), part) for part in parts[1:])]


def _tried(name: str, one: DecisionView, width: int) -> Text:
    is_match = one.matched_entry >= 0 and one.matched in {name, leaf(name)[1]}
    told = f"entry {one.matched_entry}" if is_match else f"0 of {len(one.ignored)}"
    short = "…" + leaf(name)[1] if len(name) > width - 14 else name
    return paint("   $  {m|$}", short.ljust(min(width - 14, 24)), told)


def _therefore(one: DecisionView, width: int, number: str) -> Lines:
    if one.is_skipped:
        says = "a match: leave it as it is"
    else:
        says = "no match: quantize" if one.position >= 0 else "the method chosen"
    method = one.method or "no method recorded"
    lines = [paint("{f|$}$", number.ljust(3) if number else "", says)]
    lines += wrapped(method, width, "t" if one.method else "m", "   ")
    lines += [cut(paint("   {m|by $}", short_path(one.method_where)), width)] if one.method_where else []
    runs = [(kernel.kernel or "other kernels", kernel.op) for kernel in one.kernels]
    return [*lines, *(cut(paint("   {m|runs} $ {m|$}", kernel, op), width) for kernel, op in runs)]


def _evidence(one: DecisionView, width: int) -> Lines:
    lines: Lines = []
    own = leaf(one.module)[1]
    near = [(n, entry) for n, entry in enumerate(one.ignored) if leaf(entry)[1] == own and entry not in one.tried]
    if one.hidden_entry >= 0:  # the entry of a part, where only the fused name was compared
        near.append((one.hidden_entry, one.ignored[one.hidden_entry]))
    exact = [(n, entry) for n, entry in near if entry == one.module] or near[:1]
    if exact and one.matched_entry < 0:
        number, entry = exact[0]
        lines += [blank(), paint("{f|but the list has, at entry $}", number)]
        short = "…" + ".".join(entry.split(".")[-2:]) if len(entry) > width - 18 else entry
        lines.append(paint("   $  {e|never tried}", short))
    if one.header:
        lines.append(paint("{f|$the header says}", "and " if lines else ""))
        for tensor in one.header[:4]:
            lines.append(paint("   $  $ $", leaf(tensor.name, 2)[1], dtype(tensor.dtype), bracketed(tensor.shape)))
            lines += _companions(tensor.companions, one)
    return lines if not lines or lines[0].plain == "" else [blank(), *lines]


def _kernels(one: DecisionView, width: int) -> Lines:
    """Why nothing else will run: each reason once."""
    lines: Lines = []
    for reason in one.refused:
        name, _, why = reason.partition(": ")
        first, *rest = wrapped(why, max(12, width - len(name) - 5), "m") or [blank()]
        lines.append(paint("   $  $", name, first))
        lines += [paint("   $  $", " " * len(name), more) for more in rest]
    return [blank(), said("why no other kernel", "f"), *lines] if lines else []


def _companions(names: Sequence[str], one: DecisionView) -> Lines:
    if names:
        return [paint("   {m|beside it $}", ", ".join(leaf(name)[1] for name in names))]
    return [paint("   no scale beside it")] if one.is_contradiction and one.is_built_quantized else []


def page_of_list(view: Decisions, row: Row) -> Page:
    """The ignore list as a page."""
    return Page("ignore list", view.recorded(row, 100))
