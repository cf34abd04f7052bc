"""`--hold` and `loadscope attach`: a failing host waits, is looked at again and again, and fails as it would have."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench import arming

pytestmark = pytest.mark.skipif(
    arming.pth_file() is None, reason="this Python has no loadscope.pth; install the wheel to run a command armed"
)

ENGINE = """
class Config:
    def get_quant_method(self, layer, prefix):
        if prefix == "broken":
            raise ValueError("no method for " + prefix)
        return prefix
"""

ADAPTER = """
from inspectors.probe.tracepoint import Engine, Tracepoint
ENGINE = Engine(name="toy", module="toy_engine", distribution="toy", rank="", command=lambda launch: (), tracepoints=(
    Tracepoint("method.select", "method.selected", "toy_engine:Config.get_quant_method",
               {"module": "prefix", "layer": "layer", "config": "self", "selected": "result"}),))
"""

HOST = """
from toy_engine import Config
Config().get_quant_method(None, "fine")
try:
    Config().get_quant_method(None, "broken")
except ValueError as error:
    print("the host got", repr(error), flush=True)
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    for name, text in (("toy_engine", ENGINE), ("toy_adapter", ADAPTER), ("host", HOST)):
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    return tmp_path


@pytest.fixture
def held(toy: Path, variables: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A host that waits at its exception; it is let go, or killed, when the test is over."""
    words = (
        "run",
        "--hold",
        "120",
        "--adapter",
        "toy_adapter",
        "-o",
        toy / "session",
        "--",
        sys.executable,
        toy / "host.py",
    )
    command = [sys.executable, "-m", "workbench.cli", *map(str, words)]
    process = subprocess.Popen(
        command, env={**variables, "PYTHONPATH": str(toy)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    told = []
    while not told or "held at the exception" not in told[-1]:
        told.append(process.stderr.readline())
        assert told[-1], "".join(told)
    assert f"loadscope attach {toy / 'session'}" in told[-1]
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def test_a_held_host_is_looked_at_again_and_again_and_then_fails_as_it_would_have(held, loadscope, toy):
    first = loadscope("attach", "--json", toy / "session")
    assert (first.exit_code, first.json["state"], first.json["why"]) == (0, "paused", "exception"), first.stderr
    assert first.json["failing_call"][0] == "method.select failed: ValueError: no method for broken"
    again = loadscope("attach", "--json", "--stacks", first.json["pid"])
    assert again.json["session"] == str(toy / "session")
    frames = [frame for thread in again.json["threads"] for frame in thread["frames"]]
    assert any(frame.endswith("host.py:5 <module>") for frame in frames), frames
    assert held.poll() is None
    assert loadscope("attach", "--json", "--release", toy / "session").json["state"] == "running"
    out, err = held.communicate(timeout=60)
    assert "the host got ValueError('no method for broken')" in err, (out, err)
    assert held.returncode == 1  # a finding: something failed, though the host went on


def test_a_host_that_has_ended_cannot_be_attached_to(loadscope, toy):
    words = ("run", "-q", "--adapter", "toy_adapter", "-o", toy / "session", "--", sys.executable, toy / "host.py")
    assert loadscope(*words, PYTHONPATH=str(toy)).exit_code == 1
    ran = loadscope("attach", toy / "session")
    assert (ran.exit_code, len(ran.error_lines)) == (5, 2)
    assert ran.error_lines[1] == f"try: loadscope open {toy / 'session'}"


def test_a_process_that_was_not_started_under_loadscope_is_told_how_to_be(loadscope, variables):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=variables)
    try:
        ran = loadscope("attach", process.pid)
    finally:
        process.communicate(b"\n")
    assert ran.exit_code == 2
    assert "was not started under Loadscope" in ran.error_lines[0]
    assert "loadscope run --hold -- " in ran.error_lines[1]
    assert "input()" in ran.error_lines[1]
    assert loadscope("attach", 2**22 + 5).error_lines[0].startswith("loadscope: there is no process")
