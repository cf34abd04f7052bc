"""A verdict as the few lines of text that a verb prints."""

from __future__ import annotations

from dataclasses import asdict

from sessions.loaded import loaded
from sessions.session import Session
from workbench.diagnosis.finding import Finding
from workbench.failing import failing_call
from workbench.keeping import Bundle
from workbench.outcome import Verdict

GLYPHS = {"error": "✗", "warning": "▲", "note": "•"}


def report(session: Session, verdict: Verdict, named: str = "", bundle: Bundle | None = None) -> list[str]:
    """The lines: what was loaded, what was counted, what was found, where to look.

    `named` is what the person gave, a bundle perhaps; `bundle` the one that was made now.
    """
    outcome, told = session.manifest.outcome, loaded(session)
    took = f" in {outcome.duration_s:.1f} s" if outcome and outcome.duration_s else ""
    lines = [f"loaded    {' · '.join((told.name, *told.facts))}", f"outcome   {verdict.outcome}{took}"]
    if verdict.summary is None:
        lines.append("judged    not here: that needs loadscope with its dependencies")
    else:
        lines.append(f"counts    {counted(asdict(verdict.summary.counts))}")
        if verdict.summary.coverage is not None:
            lines.append(f"coverage  {counted(asdict(verdict.summary.coverage))}")
        lines += found(verdict.findings)
    failing = failing_call(session)
    for number, line in enumerate(failing.lines if failing is not None else ()):
        lines.append(f"{'failing' if not number else '':<10}{line}")
    lines.append(f"session   {verdict.session}")
    if bundle is not None:
        lines.append(f"bundle    {bundle.in_words()}")
    return [*lines, f"next      loadscope open {bundle.path if bundle is not None else named or verdict.session}"]


def counted(numbers: dict[str, int]) -> str:
    """Numbers with their names: "1,024 weight loader calls · 96 shard splits"."""
    return " · ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in numbers.items())


def found(findings: tuple[Finding, ...]) -> list[str]:
    """The findings, a follow-on indented below what causes it."""
    if not findings:
        return ["findings  none"]
    lines: list[str] = []
    for number, finding in enumerate(findings):
        head = "findings  " if number == 0 else " " * 10
        indent = "" if finding.root else "  └ "
        lines.append(f"{head}{indent}{finding.id} {GLYPHS.get(finding.severity, '•')} {finding.title}")
        if finding.root and finding.remedy:
            lines.append(f"{' ' * 10}     try: {finding.remedy}")
    return lines
