"""`loadscope attach` on a session of several hosts: it tells where each is, changes nothing, and lets all go."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessions.together import Together

LIMIT_S = 120


@pytest.fixture
def ranks(variables, model, tmp_path) -> Iterator[subprocess.Popen[str]]:
    """The native stack as two processes that meet through gloo, both waiting at their start."""
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    load = ("-m", "backends.native", str(model), "--tp", "2", "--prompt-ids", "1,2,3", "--max-new-tokens", "2")
    words = ("run", "--paused", "-q", "-o", str(tmp_path / "session"), "--", *torchrun, *load)
    armed = {**variables, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench.cli", *words], env=armed, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    yield process
    process.terminate()
    process.communicate()


def stepped(folder: Path) -> Together:
    give_up = time.monotonic() + LIMIT_S
    while (together := Together.connect(folder)) is None:
        assert time.monotonic() < give_up, "no host listened"
    return together


def settle(together: Together) -> list[tuple[str, int]]:
    give_up = time.monotonic() + LIMIT_S
    while True:
        state, places = together.wait(0.5), together.ranks()
        if state["state"] == "paused" and [place.state for place in places] == ["paused"] * 2:
            return [(place.call["parameter"] if place.call else "", place.number) for place in places]
        assert time.monotonic() < give_up, places


def test_all_ranks_are_listed_with_their_call_and_time_outs_and_released_together(ranks, loadscope, tmp_path):
    folder = tmp_path / "session"
    together = stepped(folder)
    settle(together)
    together.breakpoints(['parameter ~ "*layers.1*in_proj_ba*" and rank = 1'])
    together.run("breakpoint")
    first, second = settle(together)
    assert first == second
    assert "layers.1" in first[0]
    for _ in range(2):  # looking again and again lets nobody go
        told = loadscope("attach", "--json", folder).json
        assert [(one["rank"], one["state"]) for one in told["hosts"]] == [(0, "paused"), (1, "paused")]
    assert [one["call"]["parameter"] for one in told["hosts"]] == [first[0]] * 2
    assert [one["collective_timeouts_s"] for one in told["hosts"]] == [{"gloo": 1800.0}] * 2
    assert told["warning"] == "collectives that wait for a held rank time out after 30 min (gloo)"
    text = loadscope("attach", "--stacks", folder).stdout
    assert text.count("backends/native/cli.py") >= 2
    assert "rank 1    process" in text
    assert f"{first[0]}, loader call {first[1]}" in text
    assert [place.state for place in together.ranks()] == ["paused"] * 2
    assert {one["state"] for one in loadscope("attach", "--json", "--release", folder).json["hosts"]} == {"running"}
    out, _ = ranks.communicate(timeout=LIMIT_S)
    assert ranks.returncode == 0, out
    together.close()


def test_hosts_that_wait_at_their_start_go_on_waiting_when_somebody_has_looked(ranks, loadscope, tmp_path):
    folder = tmp_path / "session"
    give_up = time.monotonic() + LIMIT_S
    hosts: list[dict] = []
    while len(hosts) < 2 or {one["state"] for one in hosts} != {"paused"}:
        assert time.monotonic() < give_up, hosts
        ran = loadscope("attach", "--json", folder)
        hosts = ran.json["hosts"] if ran.exit_code == 0 else []
    assert [one["why"] for one in loadscope("attach", "--json", folder).json["hosts"]] == ["start"] * 2
    for one in hosts:
        os.kill(one["pid"], 0)  # still there


def test_when_one_held_rank_is_killed_that_is_told_and_the_command_fails_as_it_would_have(ranks, tmp_path):
    together = stepped(tmp_path / "session")
    settle(together)
    together.run("next")
    assert settle(together)[0][1] == 1
    first, second = together.ranks()
    os.kill(first.pid, 9)
    while together.state()["pid"] != second.pid or together.ranks()[0].state != "ended":
        together.wait(0.1)  # torchrun ends the group soon; until then the other one is held where it was
    together.close()
    ranks.communicate(timeout=LIMIT_S)
    assert ranks.returncode == 4
