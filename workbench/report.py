"""A verdict as the few lines of text that a verb prints."""

from __future__ import annotations

from dataclasses import asdict

from sessions.session import Session
from workbench.diagnosis.finding import Finding
from workbench.failing import failing_call
from workbench.outcome import Verdict

GLYPHS = {"error": "✗", "warning": "▲", "note": "•"}


def report(session: Session, verdict: Verdict) -> list[str]:
    """The lines: what was loaded, what was counted, what was found, where to look."""
    manifest = session.manifest
    loaded = [
        manifest.name,
        manifest.format,
        f"tp {manifest.tp}" if manifest.engine else "",
        manifest.engine,
        manifest.device,
    ]
    took = f" in {manifest.outcome.duration_s:.1f} s" if manifest.outcome and manifest.outcome.duration_s else ""
    lines = [f"loaded    {' · '.join(filter(None, loaded))}", f"outcome   {verdict.outcome}{took}"]
    if manifest.attached_at:
        lines.append(f"attached  while it ran, at {manifest.attached_at}: what it loaded before is not known")
    if verdict.summary is None:
        lines.append("judged    not here: that needs loadscope with its dependencies")
    else:
        lines.append(f"counts    {counted(asdict(verdict.summary.counts))}")
        if verdict.summary.coverage is not None:
            lines.append(f"coverage  {counted(asdict(verdict.summary.coverage))}")
        lines += found(verdict.findings)
    lines += [f"{'failing' if not number else '':<10}{line}" for number, line in enumerate(failing_call(session))]
    return [*lines, f"session   {verdict.session}", f"next      loadscope open {verdict.session}"]


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
