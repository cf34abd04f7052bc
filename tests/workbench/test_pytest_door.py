"""`pytest --loadscope`: a bundle of each failing test, under xdist, with --pdb, from children; else nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from sessions.bundle.unpacking import unpack
from sessions.session import Session

ROOT = Path(__file__).resolve().parents[2]
IS_INSTALLED = any(point.value == "inspectors.pytest_plugin" for point in entry_points(group="pytest11"))

ENGINE = """
class Config:
    def get_quant_method(self, layer, prefix):
        if "broken" in prefix:
            raise ValueError("no method for " + prefix)
        return "method of " + prefix

def load(*names):
    return [Config().get_quant_method(None, name) for name in names]
"""

ADAPTER = """
from inspectors.probe.tracepoint import Engine, Tracepoint
ENGINE = Engine(name="toy", module="toy_engine", distribution="toy", rank="", command=lambda launch: (), tracepoints=(
    Tracepoint("method.select", "method.selected", "toy_engine:Config.get_quant_method",
               {"module": "prefix", "layer": "layer", "config": "self", "selected": "result"}),))
"""

TESTS = """
import os, subprocess, sys
import pytest
import toy_engine

def test_passes():
    toy_engine.load("one", "two")

@pytest.mark.parametrize("name", ["a", "b/c"])
def test_fails(name):
    toy_engine.load("first." + name, "broken." + name)

def test_fails_without_an_engine():
    assert 0

def test_fails_in_a_child():
    code = "import toy_engine; toy_engine.load('in.child', 'broken.child')"
    from inspectors.probe.bootstrap import arm
    subprocess.run([sys.executable, "-c", "from inspectors.probe.bootstrap import arm; arm(); " + code], check=True)

def test_fails_in_a_fork():
    pid = os.fork()
    if not pid:
        try:
            toy_engine.load("in.fork", "broken.fork")
        finally:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


INERT = """
import sys

def test_it():
    assert not [name for name in sys.modules if name.startswith(("workbench", "sessions"))]
    assert "inspectors.probe.agent" not in sys.modules
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name, text in (("toy_engine", ENGINE), ("toy_adapter", ADAPTER), ("test_toy", TESTS)):
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def run(project: Path) -> Run:
    """Runs pytest in the project, as a person would, with its own door if it has none installed."""

    def run_pytest(*words: object, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        variables = {key: value for key, value in os.environ.items() if not key.startswith(("LOADSCOPE_", "PYTEST_"))}
        variables |= {"PYTHONPATH": os.pathsep.join([str(project), str(ROOT)]), "PY_COLORS": "0", **more}
        door = () if IS_INSTALLED else ("-p", "inspectors.pytest_plugin")
        command = [sys.executable, "-m", "pytest", *door, "-p", "no:cacheprovider", *map(str, words)]
        return subprocess.run(
            command, cwd=project, env=variables, input=stdin, capture_output=True, text=True, timeout=240, check=False
        )

    return run_pytest


def recording(folder: Path) -> tuple[object, ...]:
    """The options that record into a folder."""
    return "--loadscope", "--loadscope-adapter", "toy_adapter", "--loadscope-dir", folder


@pytest.fixture(scope="module")
def recorded(run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = tmp_path_factory.mktemp("results")
    words = (
        "--loadscope",
        "--loadscope-adapter",
        "toy_adapter",
        "--loadscope-dir",
        folder,
        "--junitxml",
        folder / "j.xml",
    )
    return run(*words, GITHUB_STEP_SUMMARY=str(folder / "job.md")), folder


def bundles(folder: Path) -> list[str]:
    return sorted(path.name.removesuffix(".loadscope.zip") for path in folder.glob("*.loadscope.zip"))


FAILING = ["test_toy.py-test_fails-a", "test_toy.py-test_fails-b-c", "test_toy.py-test_fails_in_a_child",
           "test_toy.py-test_fails_in_a_fork"]  # fmt: skip


def modules(folder: Path, name: str, cache: Path) -> list[str]:
    session = Session.open(unpack(folder / f"{name}.loadscope.zip", cache))
    found = [event.body.module for event in session.of_kinds("method.selected")]
    session.close()
    return found


def test_a_failing_test_leaves_a_bundle_of_what_it_did_and_nothing_else(recorded, tmp_path):
    done, folder = recorded
    assert "5 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert bundles(folder) == FAILING
    assert modules(folder, FAILING[0], tmp_path) == ["first.a"]
    assert modules(folder, FAILING[1], tmp_path) == ["first.b/c"]
    assert [path for path in folder.iterdir() if path.is_dir()] == []


def test_children_of_a_test_are_in_its_bundle(recorded, tmp_path):
    _, folder = recorded
    assert modules(folder, FAILING[2], tmp_path) == ["in.child"]
    assert modules(folder, FAILING[3], tmp_path) == ["in.fork"]


def test_the_report_of_a_failing_test_names_the_call_and_the_bundle(recorded):
    done, folder = recorded
    assert "method.select failed: ValueError: no method for broken.a" in done.stdout
    assert f"loadscope open {folder / FAILING[0]}.loadscope.zip" in done.stdout


def test_junit_has_the_bundle_as_a_property(recorded):
    _, folder = recorded
    told = {
        case.get("name"): {one.get("name"): one.get("value") for one in case.iter("property")}
        for case in ET.parse(folder / "j.xml").getroot().iter("testcase")  # noqa: S314 - written by pytest
    }
    assert told["test_fails[a]"]["loadscope_bundle"] == str(folder / f"{FAILING[0]}.loadscope.zip")
    assert told["test_passes"] == {}


def test_the_page_of_the_job_has_a_row_a_bundle(recorded):
    _, folder = recorded
    rows = [line for line in (folder / "job.md").read_text().splitlines() if "toy.py::" in line]
    assert len(rows) == len(FAILING)
    assert (folder / "summary.md").read_text() == (folder / "job.md").read_text()


def test_workers_of_xdist_leave_the_same_bundles(run, tmp_path):
    done = run(*recording(tmp_path / "r"), "-n", 2)
    assert "5 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert bundles(tmp_path / "r") == FAILING


def test_a_debugger_opens_at_the_failure_and_the_bundle_is_there(run, tmp_path):
    words = (
        "--loadscope",
        "--loadscope-adapter",
        "toy_adapter",
        "--loadscope-dir",
        tmp_path,
        "-k",
        "fails and a",
        "--pdb",
    )
    done = run(*words, "-x", stdin="p prefix\nq\n")
    assert "'broken.a'" in done.stdout, done.stdout + done.stderr
    assert bundles(tmp_path) == FAILING[:1]


def test_every_test_can_leave_one(run, tmp_path):
    run(*recording(tmp_path), "--loadscope-on", "always", "-k", "passes")
    assert bundles(tmp_path) == ["test_toy.py-test_passes"]


def test_without_the_option_nothing_is_brought_in_or_left(run, project, tmp_path):
    (project / "test_inert.py").write_text(INERT, encoding="utf-8")
    before = sorted(project.iterdir())
    done = run("test_inert.py")
    assert "1 passed" in done.stdout, done.stdout
    assert [p for p in sorted(project.iterdir()) if p not in before and p.name != "__pycache__"] == []


def test_an_unknown_adapter_does_not_stop_the_tests(run, tmp_path):
    done = run("--loadscope", "--loadscope-adapter", "no_such", "--loadscope-dir", tmp_path, "-k", "passes")
    assert "1 passed" in done.stdout, done.stdout
    assert "no_such" in done.stderr
