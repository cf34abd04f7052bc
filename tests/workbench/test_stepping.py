"""A load that waits to be stepped through, without the screens: any client of the control channel can lead it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sessions.control import Control

LIMIT_S = 120


def connected(folder: Path) -> Control:
    """The control channel of the session's host, as soon as there is one."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        control = Control.connect(folder)
        if control is not None:
            return control
    pytest.fail(f"no host of {folder} answered in {LIMIT_S} s")


@pytest.fixture
def paused(variables, model, tmp_path):
    """A trace that was started with --paused and a breakpoint."""
    words = ["trace", model, "--engine", "native", "--tp", "2", "--json", "--paused", "-o", tmp_path / "session"]
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench.cli", *map(str, words), "--break", 'parameter ~ "*layers.1*in_proj_ba*"'],
        env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield process
    process.kill()
    process.communicate()


def test_a_paused_load_stops_at_a_parameter_and_ends_clean_when_it_is_let_go(paused, tmp_path):
    with connected(tmp_path / "session") as control:
        assert control.wait(LIMIT_S)["state"] == "paused"
        control.run("breakpoint")
        stopped = control.wait(LIMIT_S)
        assert (stopped["state"], "in_proj_ba" in stopped["breakpoint"]) == ("paused", True)
        source = control.inspect("source", rows=2, columns=2)
        assert source["name"] == "model.layers.1.linear_attn.in_proj_ba.weight"
        assert [len(row) for row in source["window"]] == [2, 2]
        control.breakpoints([])
        control.release()
    stdout, stderr = paused.communicate(timeout=LIMIT_S)
    assert paused.returncode == 0, stderr
    assert json.loads(stdout)["findings"] == []
    assert f"loadscope open {tmp_path / 'session'}" in stderr


def test_a_client_that_leaves_lets_the_host_go(paused, tmp_path):
    with connected(tmp_path / "session") as control:
        assert control.wait(LIMIT_S)["state"] == "paused"
    paused.communicate(timeout=LIMIT_S)
    assert paused.returncode == 0
