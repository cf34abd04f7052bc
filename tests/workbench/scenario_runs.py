"""Runs a scenario's host and judges it in this process: one interpreter a run less than the command line needs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sessions.session import Session
from workbench.demonstration import host_of_scenario
from workbench.diagnosis.finding import Finding
from workbench.diagnosis.verdict import findings
from workbench.launching import Watch

SHORT = ("--max-new-tokens", "1")


@dataclass(frozen=True)
class Judged:
    """How the host ended and what was found; the session stays open for questions."""

    state: str
    log: str
    found: tuple[Finding, ...]
    session: Session

    @property
    def root(self) -> Finding:
        """The first finding, which must be a root cause."""
        assert self.found, self.log
        assert self.found[0].root
        return self.found[0]

    @property
    def roots(self) -> list[str]:
        return [one.class_ for one in self.found if one.root]

    def follow_ons(self, finding: Finding) -> list[str]:
        by_id = {one.id: one for one in self.found}
        return [by_id[number].class_ for number in finding.explains]


def run(name: str, folder: Path, variables: Mapping[str, str], *, is_repaired: bool = False) -> Judged:
    """Load the scenario's checkpoint, with the defect or without, into a session at `folder`."""
    watch = Watch("demo", output=str(folder))
    host = host_of_scenario(name, watch, extra=SHORT, is_repaired=is_repaired, is_quiet=True)
    host.start({**variables, "PYTHONPATH": os.environ.get("PYTHONPATH", "")})
    outcome = host.wait()
    session = Session.open(folder)
    log = (folder / "host.log").read_text(encoding="utf-8")
    return Judged(outcome.state, log, findings(session), session)
