"""`loadscope run -- CMD`: a command of the person's own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sessions.session import Session
from workbench import arming

needs_pth = pytest.mark.skipif(
    arming.pth_file() is None, reason="this Python has no loadscope.pth; install the wheel to run a command armed"
)

ENGINE = """
class Config:
    def get_quant_method(self, layer, prefix):
        return "method of " + prefix

def load(layers):
    return [Config().get_quant_method(None, f"layers.{n}") for n in range(layers)]
"""

ADAPTER = """
from inspectors.probe.tracepoint import Engine, Tracepoint
ENGINE = Engine(name="toy", module="toy_engine", distribution="toy", rank="", command=lambda launch: (), tracepoints=(
    Tracepoint("method.select", "method.selected", "toy_engine:Config.get_quant_method",
               {"module": "prefix", "layer": "layer", "config": "self", "selected": "result"}),))
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    (tmp_path / "toy_engine.py").write_text(ENGINE, encoding="utf-8")
    (tmp_path / "toy_adapter.py").write_text(ADAPTER, encoding="utf-8")
    return tmp_path


def run(loadscope, toy: Path, code: str, *options: object):
    words = (
        "run",
        "--json",
        "-q",
        "-o",
        toy / "session",
        "--adapter",
        "toy_adapter",
        *options,
        "--",
        sys.executable,
        "-c",
        code,
    )
    return loadscope(*words, PYTHONPATH=str(toy))


@needs_pth
def test_a_command_is_recorded(loadscope, toy):
    ran = run(loadscope, toy, "import toy_engine; toy_engine.load(3)")
    assert (ran.exit_code, ran.json["outcome"], ran.json["verb"]) == (0, "ok", "run"), ran.stderr
    session = Session.open(toy / "session")
    assert [e.body.module for e in session.of_kinds("method.selected")] == ["layers.0", "layers.1", "layers.2"]
    session.close()


@needs_pth
def test_children_of_the_command_are_recorded_too(loadscope, toy):
    child = "[sys.executable, '-c', 'import toy_engine; toy_engine.load(2)']"
    code = f"import subprocess, sys, toy_engine; toy_engine.load(1); subprocess.run({child}, check=True)"
    ran = run(loadscope, toy, code)
    assert ran.exit_code == 0
    session = Session.open(toy / "session")
    assert len(session.streams) == 2
    assert session.count("method.selected") == 3
    session.close()


@needs_pth
def test_a_forked_child_is_recorded_in_a_stream_of_its_own(loadscope, toy):
    code = "import os, toy_engine; toy_engine.load(1); pid = os.fork(); toy_engine.load(2); pid and os.waitpid(pid, 0)"
    ran = run(loadscope, toy, code)
    assert ran.exit_code == 0
    session = Session.open(toy / "session")
    assert sorted(sum(1 for e in session.of_kinds("method.selected") if e.stream == n) for n in (0, 1)) == [2, 3]
    session.close()


@needs_pth
def test_nothing_recorded_is_a_failure_and_not_a_clean_load(loadscope, toy):
    ran = run(loadscope, toy, "print('no engine here')")
    assert (ran.exit_code, ran.json["outcome"]) == (5, "incomplete")
    assert ran.error_lines[0].startswith("loadscope: nothing was recorded")
    assert len(ran.error_lines) == 2


@needs_pth
def test_the_exception_of_the_command_is_its_own(loadscope, toy):
    code = "import toy_engine\ntoy_engine.load(1)\nraise SystemExit(7)"
    ran = run(loadscope, toy, code)
    assert (ran.exit_code, ran.json["outcome"]) == (4, "failed")
    manifest = json.loads((toy / "session" / "session.json").read_text(encoding="utf-8"))
    assert manifest["outcome"]["exit_code"] == 7


@needs_pth
def test_what_the_command_prints_is_kept_and_repeated(loadscope, toy):
    code = "import sys, toy_engine; toy_engine.load(1); print('out', flush=True); print('err', file=sys.stderr)"
    words = ("run", "-o", toy / "session", "--adapter", "toy_adapter", "--", sys.executable, "-c", code)
    ran = loadscope(*words, PYTHONPATH=str(toy))
    assert ran.exit_code == 0
    assert ran.error_lines[:2] == ["out", "err"]
    assert (toy / "session" / "host.log").read_text(encoding="utf-8") == "out\nerr\n"
    times = (toy / "session" / "host.log.times").read_text(encoding="ascii").splitlines()
    assert [int(line.split()[1]) for line in times] == [0, 4]


def test_a_command_that_does_not_exist_is_the_hosts_failure(loadscope, tmp_path):
    ran = loadscope("run", "-o", tmp_path / "session", "--", "/nowhere/command")
    if arming.pth_file() is None:
        assert ran.exit_code == 5
        return
    assert (ran.exit_code, len(ran.error_lines)) == (4, 2)
    assert "/nowhere/command" in ran.error_lines[0]
    assert (
        json.loads((tmp_path / "session" / "session.json").read_text(encoding="utf-8"))["outcome"]["exit_code"] == 127
    )


@pytest.mark.parametrize("said", ["True", "False"])
@pytest.mark.parametrize("head", ["#!{}\nimport engine\n", '#!/bin/sh\n\'\'\'exec\' "{}" "$0" "$@"\n'])
def test_a_script_is_armed_where_the_python_that_it_names_is(tmp_path, head, said):
    folder = "of engine" if "exec" in head else "engine"  # a first line cannot hold a space
    python, script = tmp_path / folder / "python3.12", tmp_path / "serve"
    python.parent.mkdir()
    python.write_text(f"#!/bin/sh\necho {said}\n")
    script.write_text(head.format(python))
    for file in (python, script):
        file.chmod(0o755)
    assert arming.arms(str(script)) == (said == "True")


def test_a_command_that_names_no_python_is_armed_where_ours_is(tmp_path):
    (tmp_path / "serve").write_text("#!/bin/sh\npython3 serve.py\n")
    (tmp_path / "serve").chmod(0o755)
    assert arming.arms(str(tmp_path / "serve")) == (arming.pth_file() is not None)
