"""What pytest calls: a session around every test, bundles of those that fail, a line for each in every report."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from workbench.errors import UserError
from workbench.testruns.recording import Kept, TestSessions
from workbench.testruns.summary import markdown

PROPERTY = "loadscope_bundle"
FAILURE_PROPERTY = "loadscope_failure"


class Recording:
    """One per pytest process: the one that a person started, or a worker of xdist."""

    def __init__(self, config: pytest.Config) -> None:
        self._folder = Path(config.getoption("--loadscope-dir")).absolute()
        self._keeps_all = config.getoption("--loadscope-on") == "always"
        self._is_worker = hasattr(config, "workerinput")
        adapters = tuple(config.getoption("--loadscope-adapter"))
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            level, hold_s = config.getoption("--loadscope-level"), config.getoption("--loadscope-hold")
            self._sessions = TestSessions(self._folder, level, adapters, hold_s)
        except (OSError, UserError) as error:
            raise pytest.UsageError(f"--loadscope: {getattr(error, 'what', error)}") from error
        self._kept: Kept | None = None
        if self._is_worker or not config.getoption("numprocesses", default=None):
            self._sessions.begin("collection")  # engines are imported while tests are collected

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """A test with its fixtures is one session."""
        self._sessions.end()
        self._sessions.begin(item.nodeid)
        self._kept = None
        try:
            return (yield)
        finally:
            self._sessions.end()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """The marker's limit is judged as a part of the test."""
        result = yield
        for marker in item.iter_markers("loadscope"):
            wanted = float(marker.kwargs.get("min_coverage", 1.0))
            found = self._sessions.coverage()
            if found is None:
                pytest.fail("loadscope: no load was recorded whose parameters could be looked at", pytrace=False)
            if found < wanted:
                pytest.fail(f"loadscope: {found:.4%} of the parameters were filled, wanted {wanted:.4%}", pytrace=False)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, Any]:
        """Pack at the first failing phase, or at the end; the report of each phase says where the bundle is."""
        report: pytest.TestReport = yield
        is_wanted = report.failed or (self._keeps_all and call.when == "teardown")
        if is_wanted and self._kept is None:
            self._keep(item, report)
        return report

    def _keep(self, item: pytest.Item, report: pytest.TestReport) -> None:
        try:
            self._kept = self._sessions.keep(f"{item.nodeid} {report.outcome}", has_failed=report.failed)
        except Exception as error:  # noqa: BLE001 - a bundle that cannot be made must not change a test's result
            print(f"loadscope: no bundle of {item.nodeid}: {error}", file=sys.stderr)
            return
        if self._kept is not None:
            told = [(PROPERTY, str(self._kept.path)), (FAILURE_PROPERTY, "\n".join(self._kept.lines))]
            item.user_properties.extend(told)
            report.user_properties = list(item.user_properties)
            text = "\n".join([*self._kept.lines, f"bundle     loadscope open {self._kept.path}"])
            report.sections.append(("loadscope", text))

    def pytest_sessionfinish(self) -> None:
        """Remove what no test took."""
        self._sessions.finish()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """A line for each bundle, and the Markdown page of a CI job."""
        reports = [r for kind in terminalreporter.stats.values() for r in kind if hasattr(r, "user_properties")]
        found = {r.nodeid: dict(r.user_properties) for r in reports if PROPERTY in dict(r.user_properties)}
        if not found:
            return
        terminalreporter.section("loadscope")
        for nodeid, told in found.items():
            failed, _, _ = told.get(FAILURE_PROPERTY, "").partition("\n")
            terminalreporter.line(f"{nodeid}: {failed or 'no call failed'}")
            terminalreporter.line(f"  loadscope open {told[PROPERTY]}")
        rows = [(nodeid, told.get(FAILURE_PROPERTY, ""), Path(told[PROPERTY]).name) for nodeid, told in found.items()]
        page = markdown(rows)
        (self._folder / "summary.md").write_text(page, encoding="utf-8")
        job_page = os.environ.get("GITHUB_STEP_SUMMARY")
        if job_page:
            with Path(job_page).open("a", encoding="utf-8") as file:
                file.write(page)
