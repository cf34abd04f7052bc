"""The golden recordings: opened as they are, and judged as on the day they were made, without running a load."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from sessions.session import Session
from workbench.diagnosis.verdict import findings
from workbench.outcome import verdict_of
from workbench.scenario import scenario_named

GOLDEN = Path(__file__).resolve().parents[2] / "sessions" / "golden"
RECORDINGS = sorted(path.parent for path in GOLDEN.glob("*/session.json"))
MOST_BYTES = 300 << 10
OF_A_MACHINE = ("/home/", "/root/", "/tmp/", "/usr/", "/Users/", "/work", "site-packages/../")  # noqa: S108 - looked for, not written to
names = pytest.mark.parametrize("folder", RECORDINGS, ids=lambda path: path.name)


@pytest.fixture
def session(folder):
    opened = Session.open(folder)
    yield opened
    opened.close()


def test_there_is_a_recording_of_each_planted_defect():
    from workbench import plugins

    planted = {name for name in plugins.names(plugins.SCENARIOS) if scenario_named(name).expects}
    assert {path.name for path in RECORDINGS} == planted


@names
def test_a_recording_gives_the_findings_of_the_day_it_was_made(folder, session):
    expected = json.loads((folder / "findings.json").read_text(encoding="utf-8"))
    found = [
        {"class": one.class_, "module": one.module, "parameter": one.parameter, "tensor": one.tensor,
         "root": one.root, "seen": one.seen}
        for one in findings(session)
    ]  # fmt: skip
    assert found == expected


@names
def test_its_first_finding_is_the_one_its_scenario_expects(folder, session):
    first = findings(session)[0]
    assert (first.class_, first.root) == (scenario_named(folder.name).expects, True)
    assert session.manifest.scenario == folder.name
    assert verdict_of(session, "open", fail_on=first.severity, has_just_run=False).exit_code == 1


@names
def test_it_is_small_and_opening_it_writes_nothing(folder, session):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < MOST_BYTES
    assert len(session) > 0
    assert findings(session)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@names
def test_it_does_not_say_where_it_was_made(folder):
    texts = [path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.suffix in (".json", ".log")]
    for stream in folder.glob("streams/*.sqlite"):
        db = sqlite3.connect(f"{stream.as_uri()}?mode=ro", uri=True)
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall():
            rows = db.execute(f'SELECT * FROM "{table}"').fetchall()  # noqa: S608 - our schema
            texts += [str(value) for row in rows for value in row if value]
        db.close()
    assert [text for text in texts for place in OF_A_MACHINE if place in text] == []
