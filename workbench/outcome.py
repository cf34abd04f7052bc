"""The object that `--json` prints: one shape for every verb that ends with a session or a verdict."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sessions.liveness import has_no_recorded_end
from sessions.loaded import loaded
from sessions.session import Session
from workbench.diagnosis.finding import SEVERITIES, Finding
from workbench.errors import CLEAN, FINDINGS, HOST_FAILED, INCOMPLETE

if TYPE_CHECKING:
    from sessions.summary import Summary

NEVER = "never"


@dataclass(frozen=True)
class Verdict:
    """What a session came to: its summary, its findings (root causes first), and the process's exit code.

    `summary` is None and `findings` are empty where this Python has only the wheel: it is judged elsewhere then.
    """

    verb: str
    outcome: str
    exit_code: int
    session: Path
    summary: Summary | None
    findings: tuple[Finding, ...]
    manifest_facts: dict[str, object]

    def as_json(self) -> dict[str, object]:
        """The object of `--json`; a part that the session does not have is left out."""
        said: dict[str, object] = {
            "schema": 1,
            "verb": self.verb,
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "session": str(self.session),
            **{key: value for key, value in self.manifest_facts.items() if value not in ("", None)},
        }
        if self.summary is None:
            return said
        said["counts"] = asdict(self.summary.counts)
        if self.summary.coverage is not None:
            said["coverage"] = asdict(self.summary.coverage)
        said["findings"] = [finding.as_json() for finding in self.findings]
        return said


def can_judge() -> bool:
    """Whether this Python has what judging needs; recording needs the standard library only."""
    return importlib.util.find_spec("numpy") is not None


def verdict_of(
    session: Session, verb: str, *, fail_on: str = "error", has_just_run: bool = True, limits: str = ""
) -> Verdict:
    """Judge a session.

    `has_just_run` is true for a verb that ran the host itself: then the host's failure decides (exit 4), and a
    session in which nothing was recorded is incomplete (exit 5). So is one whose host still runs, or ended without
    anybody there to say how. `fail_on` is the least severity that gives exit 1. `limits` names those of the device by
    which launches are judged instead of the session's own.
    """
    told: tuple[Finding, ...] = ()
    numbers = None
    if can_judge():
        from sessions.summary import summary
        from workbench.diagnosis.verdict import findings

        told, numbers = findings(session, limits), summary(session)
    outcome, exit_code = _judged(session, told, fail_on, has_just_run=has_just_run)
    manifest, recorded = session.manifest, loaded(session)
    facts: dict[str, object] = {
        "engine": recorded.engine,
        "engine_version": recorded.engine_version,
        "device": recorded.device,
        "tp": recorded.tp,
        "duration_s": manifest.outcome.duration_s if manifest.outcome and not has_no_recorded_end(session) else None,
    }
    return Verdict(verb, outcome, exit_code, session.path, numbers, told, facts)


def is_at_least(severity: str, fail_on: str) -> bool:
    """True when a finding of `severity` is one that the person asked to fail on."""
    order: tuple[str, ...] = SEVERITIES
    return fail_on != NEVER and order.index(severity) <= order.index(fail_on)


def _judged(session: Session, told: Sequence[Finding], fail_on: str, *, has_just_run: bool) -> tuple[str, int]:
    state = session.manifest.outcome.state if session.manifest.outcome is not None else "running"
    if has_just_run and state in ("failed", "killed"):
        return "failed", HOST_FAILED
    if has_just_run and (state != "ok" or not holds_observations(session)):
        return "incomplete", INCOMPLETE
    if has_no_recorded_end(session) and not session.is_complete:
        return "incomplete", INCOMPLETE
    if any(is_at_least(finding.severity, fail_on) for finding in told):
        return "findings", FINDINGS
    return "ok", CLEAN


def holds_observations(session: Session) -> bool:
    """True when the session holds more than "a process was armed": anything an engine did."""
    return any(session.count(kind) for kind in session.kinds() if kind not in ("process.started", "engine.found"))
