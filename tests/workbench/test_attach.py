"""`--hold` and `loadscope attach`: a failing host waits, is looked at again and again, and fails as it would have."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
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
    """A host that waits at its exception and listens on TCP; let go, or killed, when the test is over."""
    running = ("run", "--hold", "120", "--listen", "localhost:0", "--adapter", "toy_adapter", "-o", toy / "session")
    words = (*running, "--", sys.executable, toy / "host.py")
    command = [sys.executable, "-m", "workbench.cli", *map(str, words)]
    process = subprocess.Popen(
        command, env={**variables, "PYTHONPATH": str(toy)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    told = []
    while not told or "held at the exception" not in told[-1]:
        told.append(process.stderr.readline())
        assert told[-1], "".join(told)
    assert f"loadscope attach {toy / 'session'}" in told[-1]
    assert any("listens on 127.0.0.1:" in line for line in told)
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def note_of(toy: Path) -> Path:
    (note,) = (toy / "session" / "control").glob("*.json")
    return note


def fails_as_it_would_have(held: subprocess.Popen[str]) -> bool:
    out, err = held.communicate(timeout=60)
    assert "the host got ValueError('no method for broken')" in err, (out, err)
    return held.returncode == 1  # a finding: something failed, though the host went on


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
    assert fails_as_it_would_have(held)


def test_a_host_behind_a_port_is_mirrored_looked_at_and_let_go(held, loadscope, toy, tmp_path):
    note = json.loads(note_of(toy).read_text("utf-8"))
    address, token = note["tcp"], {"LOADSCOPE_TOKEN": note["token"]}
    first = loadscope("attach", address, "--json", **token)
    assert (first.exit_code, first.json["state"], first.json["why"]) == (0, "paused", "exception"), first.stderr
    assert first.json["failing_call"][0] == "method.select failed: ValueError: no method for broken"
    mirror = Path(first.json["session"])
    assert (mirror.name.startswith("mirror-"), mirror.stat().st_mode & 0o777) == (True, 0o700)
    assert not (mirror / "control").exists()
    again = loadscope("attach", address, "--json", "--token-file", note_of(toy))
    assert again.json["session"] == str(mirror)
    stacks = loadscope("attach", address, "--stacks", **token)
    assert "host.py:5 <module>" in stacks.stdout
    assert loadscope("diagnose", mirror).exit_code in {1, 5}
    ended = loadscope("attach", address, "--release", "--json", "-o", tmp_path / "mine", **token)
    assert (ended.json["state"], ended.json["session"]) == ("running", str(tmp_path / "mine"))
    assert fails_as_it_would_have(held)
    gone = loadscope("attach", address, **token)
    assert (gone.exit_code, len(gone.error_lines)) == (5, 2)


def test_a_token_is_wanted_and_the_right_one(held, loadscope, toy, tmp_path):
    address = json.loads(note_of(toy).read_text("utf-8"))["tcp"]
    none = loadscope("attach", address)
    assert (none.exit_code, len(none.error_lines)) == (2, 2)
    assert "control/PID.json of the session folder" in none.error_lines[0]
    assert "LOADSCOPE_TOKEN" in none.error_lines[1]
    wrong = loadscope("attach", address, LOADSCOPE_TOKEN="guess")  # noqa: S106 - a wrong one
    assert (wrong.exit_code, len(wrong.error_lines)) == (2, 2)
    assert "does not let us in" in wrong.error_lines[0]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    full = loadscope("attach", address, "-o", tmp_path / "full", "--token-file", note_of(toy))
    assert (full.exit_code, "is not empty" in full.error_lines[0]) == (2, True)
    assert loadscope("attach", "--release", toy / "session").exit_code == 0
    assert fails_as_it_would_have(held)


@pytest.mark.parametrize("address", ["0.0.0.0:5678", "10.1.2.3:5678", "example.org:80"])
def test_addresses_of_other_machines_are_refused_on_both_sides(loadscope, toy, address):
    for words in (("run", "--listen", address, "-o", toy / "session", "--", sys.executable), ("attach", address)):
        ran = loadscope(*words, LOADSCOPE_TOKEN="guess")  # noqa: S106 - a wrong one
        assert (ran.exit_code, len(ran.error_lines)) == (2, 2), ran.stderr
        assert "ssh -L" in ran.error_lines[1]
    assert not (toy / "session").exists()


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_the_screens_open_on_a_host_behind_a_port_and_control_it(held, toy, variables, tmp_path):
    note = json.loads(note_of(toy).read_text("utf-8"))
    server = ["tmux", "-S", str(tmp_path / "socket"), "-f", "/dev/null"]
    command = [sys.executable, "-m", "workbench.cli", "attach", note["tcp"], "-o", str(tmp_path / "mine")]
    variables = {**variables, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "PYTHONPATH": str(arming.ROOT)}
    line = f"{shlex.join(command)}; echo left with $?; sleep 60"

    def tmux(*words: str) -> str:
        return subprocess.run([*server, *words], capture_output=True, text=True, check=False, env=variables).stdout

    def shows(text: str) -> None:
        end = time.monotonic() + 60
        while text not in tmux("capture-pane", "-p"):
            assert time.monotonic() < end, tmux("capture-pane", "-p")

    tmux(
        "new-session",
        "-d",
        "-x",
        "120",
        "-y",
        "36",
        shlex.join(["env", "-u", "COLUMNS", "-u", "LINES", "sh", "-c", line]),
    )
    try:
        shows("token of the host at")
        tmux("send-keys", note["token"], "Enter")
        shows("host waits at t")
        assert (tmp_path / "mine" / "control" / note_of(toy).name).stat().st_mode & 0o777 == 0o600
        tmux("send-keys", "!")
        assert fails_as_it_would_have(held)
        shows("host ended")
        tmux("send-keys", "q")
        shows("left with 0")
    finally:
        tmux("kill-server")
    assert not list((tmp_path / "mine" / "control").iterdir())


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
