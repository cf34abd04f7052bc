"""Hosts that end in the middle: what they recorded until then is there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sessions.manifest import Manifest
from sessions.session import Session

LIMIT_S = 120
LONG = ("--max-new-tokens", "200")
"""So that a host is still at work when it is to be ended."""


@contextmanager
def running(variables: dict[str, str], *words: object) -> Iterator[subprocess.Popen[str]]:
    """A `loadscope` process, which is gone at the end whatever happens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench.cli", *map(str, words)],
        env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for_events(folder: Path, at_least: int) -> int:
    """Wait until so many loader calls are recorded, and return the host's pid."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        streams = list((folder / "streams").glob("*.sqlite")) if folder.is_dir() else []
        if streams and (folder / "session.json").exists():
            session = Session.open(folder)
            seen = session.count("loader.called")
            session.close()
            if seen >= at_least:
                return int(streams[0].name.partition("-")[0])
    pytest.fail(f"fewer than {at_least} loader calls were recorded in {LIMIT_S} s")


@pytest.mark.parametrize("calls", [1, 300, 900])
def test_a_load_killed_with_sigkill_leaves_a_session_that_opens(variables, model, tmp_path, calls):
    words = ("trace", model, "--engine", "native", "--tp", "4", *LONG, "--json", "-o", tmp_path / "session")
    with running(variables, *words) as process:
        os.kill(wait_for_events(tmp_path / "session", calls), signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 4
    assert json.loads(stdout)["outcome"] == "failed"
    assert "was killed by SIGKILL" in stderr
    session = Session.open(tmp_path / "session")
    assert session.manifest.outcome.state == "killed"
    assert session.manifest.outcome.signal == "SIGKILL"
    assert session.count("loader.called") >= calls
    assert len(session.page(0, len(session))) == len(session)
    session.close()


def test_a_killed_workbench_leaves_a_session_that_opens(variables, model, tmp_path):
    words = ("trace", model, "--engine", "native", "--tp", "4", *LONG, "-o", tmp_path / "session")
    with running(variables, *words) as process:
        pid = wait_for_events(tmp_path / "session", 1)
        process.kill()
        process.wait()
        os.kill(pid, signal.SIGKILL)
    session = Session.open(tmp_path / "session")
    assert session.count("loader.called") >= 1
    assert session.manifest.outcome.state == "running"
    session.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_load_ends_its_host_and_leaves_a_readable_session(variables, model, tmp_path, number):
    words = ("trace", model, "--engine", "native", "--tp", "4", *LONG, "--json", "-o", tmp_path / "session")
    with running(variables, *words) as process:
        pid = wait_for_events(tmp_path / "session", 10)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 5
    assert json.loads(stdout)["outcome"] == "incomplete"
    assert len(stderr.splitlines()) == 2
    assert "interrupted" in stderr
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    session = Session.open(tmp_path / "session")
    assert session.manifest.outcome.state == "interrupted"
    assert session.count("loader.called") >= 10
    session.close()


def test_a_host_that_will_not_end_is_ended(tmp_path):
    from workbench.host import Host

    ignoring = "for n in (signal.SIGINT, signal.SIGTERM): signal.signal(n, signal.SIG_IGN)"
    script = f"import signal\n{ignoring}\nprint('up', flush=True)\nwhile True: signal.pause()"
    host = Host(tmp_path, Manifest(command=(sys.executable, "-c", script), level="calls"))
    (tmp_path / "streams").mkdir()
    host.start()
    while "up" not in (tmp_path / "host.log").read_text(encoding="utf-8").split():
        assert host.is_running()
    for _ in range(3):
        host.interrupt()
    outcome = host.wait()
    assert (outcome.state, outcome.signal) == ("interrupted", "SIGKILL")


def test_a_host_killed_before_its_first_commit_leaves_an_empty_session(tmp_path):
    Manifest(verb="trace").write(tmp_path)
    (tmp_path / "streams").mkdir()
    (tmp_path / "streams" / "1-0.sqlite").touch()
    session = Session.open(tmp_path)
    assert len(session) == 0
    session.close()
