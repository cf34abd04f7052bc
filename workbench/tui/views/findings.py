"""What is wrong: root causes with their follow-ons, the chain from cause to effect, and numbered evidence."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from rich.text import Text

from workbench.diagnosis.finding import Evidence, Finding
from workbench.failing import FailingCall, failing_call
from workbench.tui.keymap import hint
from workbench.tui.lens import Lens, Place
from workbench.tui.marks import line
from workbench.tui.paint import Lines, cut, padded, paint, said, wrapped
from workbench.tui.views.view import Leads, Page, Reading, View, blank, fact
from workbench.tui.widgets.longlist import Column
from workbench.tui.wording import dtype

SEVERITY = {"error": ("✗", "e"), "warning": ("▲", "w"), "note": ("•", "a")}
TONES = {"error": "e", "warning": "w", "note": "m", "plain": "t", "": "t"}
LOOKS = {
    "skip.decided": "decisions",
    "method.selected": "decisions",
    "parameter.registered": "parameters",
    "kernel.launched": "Kernels",
}
LABEL = 11
LESS = frozenset({"loader", "defined at"})
MOST_STEPS = 4
MOST_LINES = 4
ARROW = 4
_DTYPE = re.compile(r"\b(?:b?float|u?int)\d+\w*")
_LAYER = re.compile(r"\blayers?\.(\d+)")
_DOTTED = re.compile(r"\b(?:[A-Za-z]\w*\.)(?:\w+\.)+\w+")


@dataclass(frozen=True)
class Row:
    """A finding and how far below its cause it stands."""

    finding: Finding
    depth: int


class Findings(View):
    """A follow-on stands below its cause and is never counted twice."""

    columns = (Column("finding"), Column("where", 14, keeps_end=True))
    hints = (
        hint("list.down list.up", "move"),
        hint("evidence.1", "evidence"),
        hint("follow", "first evidence"),
        hint("trouble", "only errors"),
        hint("copy"),
        hint("commands"),
        hint("help"),
    )

    def __init__(self, reading: Reading, lens: Lens) -> None:
        super().__init__(reading, lens)
        self.failing = failing_call(reading.session)
        every = _nested(reading.snapshot.findings)
        self.total = len(every)
        kept = [row for row in every if lens.filter.strip("*\"' ").lower() in _searched(row.finding)]
        self.rows = self.trouble_only(kept, lambda row: row.finding.severity == "error")

    def cells(self, row: Row, width: int) -> Sequence[Text]:
        """Glyph, number and title; follow-ons are quiet."""
        finding = row.finding
        glyph, role = SEVERITY.get(finding.severity, ("•", "m"))
        if row.depth:
            lead = paint("{f|$└ }{m|$}  {m|$}", "  " * row.depth, finding.id, finding.title)
        else:
            strong = "b" if finding.severity == "error" else "t"
            lead = paint("{" + role + "|$ $}  {" + strong + "|$}", glyph, finding.id.ljust(2), finding.title)
        return (lead, said(_where(finding), "m"))

    def identity(self, row: Row) -> Hashable:
        """The finding's number."""
        return row.finding.id

    def position(self, row: Row) -> int | None:
        """The first event of its evidence."""
        return next((one.position for one in row.finding.evidence if one.position is not None), None)

    def above(self, width: int) -> Lines:
        """How the first root cause came about, one column a stage; the call at which the host failed."""
        chosen = next((row.finding for row in self.rows if row.finding.steps), None)
        return [
            *(came_about(chosen, width) if chosen is not None else []),
            *(where_it_failed(self.failing, width) if self.failing is not None else []),
        ]

    def brief(self, width: int) -> Lines:
        """The failing call without what its place tells as well."""
        return facts_of(self.failing, width, without=LESS) if self.failing is not None else []

    def detail(self, row: Row, width: int) -> Lines:
        """Class, one sentence, evidence, what it explains, what to try."""
        finding = row.finding
        lines = [paint("{f|$ · $ · $}", finding.id, finding.severity, finding.class_)]
        lines += [*wrapped(finding.title, width, "b"), blank(), *wrapped(finding.sentence, width)]
        if finding.evidence:
            lines += [blank(), said("evidence", "f")]
            for number, evidence in enumerate(finding.evidence, 1):
                lines += self._evidence(number, evidence, width)
        lines += self._explains(finding, width)
        if finding.remedy:
            lines += [blank(), said("try", "f"), *wrapped(finding.remedy, width)]
        seen = f"seen {finding.seen} times, same cause" if finding.seen > 1 else "seen once"
        lines += [blank(), said(seen, "m")]
        last = min(9, len(finding.evidence))
        keys = (hint("evidence.1", f"to {last}: go to evidence" if last > 1 else "go to evidence"), hint("copy"))
        return [*lines, self.reading.keys(keys if last else (hint("copy"),))]

    def _evidence(self, number: int, evidence: Evidence, width: int) -> Lines:
        event = self.reading.event(evidence.position)
        lead = paint("{k|$} {m|$} {t|$}", number, event.ljust(5), evidence.what.ljust(9))
        told = evidence.text.splitlines()[0] if evidence.text else ""
        texts = limited(wrapped(shortened(told), max(12, width - lead.cell_len - 1), "t" if event else "m"), 6)
        first = Text.assemble(lead, " ", texts[0], no_wrap=True, end="")
        return [first, *(Text.assemble(" " * (lead.cell_len + 1), one, no_wrap=True, end="") for one in texts[1:])]

    def _explains(self, finding: Finding, width: int) -> Lines:
        by_id = {one.id: one for one in self.reading.snapshot.findings}
        explained = [by_id[id_] for id_ in finding.explains if id_ in by_id]
        causes = [one for one in by_id.values() if finding.id in one.explains]
        lines: Lines = []
        for label, group in (("explains", explained), ("follows from", causes)):
            if group:
                lines += [blank(), said(label, "f")]
                lines += [cut(paint("$  $", one.id, one.title), width) for one in group]
        return lines

    def follow(self, row: Row) -> Leads:
        """The first evidence that is an event."""
        return next(
            (self.evidence(row, n) for n, e in enumerate(row.finding.evidence, 1) if e.position is not None), None
        )

    def evidence(self, row: Row, number: int) -> Leads:
        """Where evidence leads: the screen of its event, or a page for what is no event."""
        if not 1 <= number <= len(row.finding.evidence):
            return None
        evidence = row.finding.evidence[number - 1]
        if evidence.position is None:
            lines = [said(f"{row.finding.id} · evidence {number} · {evidence.what}", "f"), *wrapped(evidence.text, 100)]
            return Page(f"evidence {number}", lines)
        if evidence.screen:
            return Place(evidence.screen, row=evidence.row or None)
        kind = self.reading.session.event(evidence.position).kind
        return Place(LOOKS.get(kind, "timeline"), position=evidence.position)

    def empty(self, width: int) -> Lines:
        """A load without findings says what was looked at."""
        hidden = self.nothing_matches(self.total, "findings")
        if hidden:
            return hidden
        if self.reading.snapshot.is_live:
            return [said("No findings yet; the load goes on."), paint("{k|t} {m|shows where it is}")]
        return [*wrapped("No findings. Every rule read this session and had nothing to say.", width)]


def shortened(text: str) -> str:
    """Dotted names without their front, because their end is what differs; `i` has them whole."""
    return _DOTTED.sub(_end_of, text)


def _end_of(match: re.Match[str]) -> str:
    parts = match[0].split(".")
    kept = 2 if parts[-1].startswith(("weight", "bias", "qweight")) else 1
    return "…" + ".".join(parts[-kept:])


def _terse(text: str) -> str:
    """The text of a step: dotted names without their front, dtypes in their short spelling."""
    return _DTYPE.sub(lambda match: dtype(match[0]), shortened(text))


def limited(lines: Lines, most: int) -> Lines:
    """At most so many lines; a last one that is not the end says so."""
    if len(lines) <= most:
        return lines
    last = Text.assemble(lines[most - 1][: max(0, len(lines[most - 1]) - 1)], ("…", "f"), no_wrap=True, end="")
    last.style = lines[most - 1].style
    return [*lines[: most - 1], last]


def _searched(finding: Finding) -> str:
    return f"{finding.id} {finding.severity} {finding.class_} {finding.title} {finding.module}".lower()


def _where(finding: Finding) -> str:
    layers = sorted({int(n) for name in finding.modules for n in _LAYER.findall(name)})
    if layers and not finding.parameter:
        return "layer" + ("s " if len(layers) > 1 else " ") + _ranges(layers)
    place = finding.parameter or finding.module or finding.tensor or ""
    short = place.removeprefix("model.")
    return short or ("" if finding.rank is None else f"rank {finding.rank}")


def _ranges(numbers: Sequence[int]) -> str:
    """`0 1 2` while it is short, else `0–46`."""
    text = " ".join(str(n) for n in numbers)
    return text if len(text) <= 7 else f"{numbers[0]}–{numbers[-1]}"


def _nested(found: Sequence[Finding]) -> list[Row]:
    """Roots in their order, each followed by what it explains, to any depth; nothing twice."""
    by_id = {one.id: one for one in found}
    explained = {id_ for one in found for id_ in one.explains}
    rows: list[Row] = []
    seen: set[str] = set()

    def add(finding: Finding, depth: int) -> None:
        if finding.id in seen:
            return
        seen.add(finding.id)
        rows.append(Row(finding, depth))
        for id_ in finding.explains:
            if id_ in by_id:
                add(by_id[id_], depth + 1)

    for one in found:
        if one.id not in explained:
            add(one, 0)
    for one in found:
        add(one, 0)
    return rows


def where_it_failed(failing: FailingCall, width: int) -> Lines:
    """Stage and exception, then a line a fact."""
    lines = [said("where it failed", "f"), blank(), *limited(wrapped(failing.failed, width, "e"), 2)]
    return [*lines, *facts_of(failing, width), blank()]


def facts_of(failing: FailingCall, width: int, without: AbstractSet[str] = frozenset()) -> Lines:
    """One line a fact; of names and places that are too long the ends are kept."""
    room, told = width - LABEL, [(label, text) for label, text in failing.facts if label not in without]
    return [fact(label, cut(said(text), room, keeps_end=True), indent=LABEL) for label, text in told]


def came_about(finding: Finding, width: int) -> Lines:
    """One column a stage from cause to effect, with arrows between."""
    steps = finding.steps[:MOST_STEPS]
    room = max(10, (width - ARROW * (len(steps) - 1)) // max(1, len(steps)))
    labels, texts = (
        line(),
        [limited(wrapped(_terse(text), room, TONES.get(tone, "t")), MOST_LINES) for _, text, tone in steps],
    )
    rows = [line() for _ in range(max((len(one) for one in texts), default=0))]
    for number, ((label, _, _), lines) in enumerate(zip(steps, texts, strict=True)):
        is_last = number == len(steps) - 1
        labels.append_text(padded(said(label, "m"), room + (0 if is_last else ARROW)))
        for at, row in enumerate(rows):
            row.append_text(padded(lines[at] if at < len(lines) else blank(), room))
            if not is_last:
                row.append(" →  " if at == 0 else " " * ARROW, "f")
    return [said("how it came about", "f"), blank(), labels, *rows, blank()]
