"""`loadscope attach` on a session of several hosts: it tells where each is, changes nothing, and lets all go."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

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


def settle(together: Together) -> list[tuple[str, int]]:
    give_up = time.monotonic() + LIMIT_S
    while True:
        state, places = together.wait(0.5), together.ranks()
        if state["state"] == "paused" and [place.state for place in places] == ["paused"] * 2:
            return [(place.call["parameter"] if place.call else "", place.number) for place in places]
        assert time.monotonic() < give_up, places


def test_all_ranks_are_listed_with_their_call_go_on_waiting_and_are_released_together(ranks, loadscope, tmp_path):
    folder = tmp_path / "session"
    give_up = time.monotonic() + LIMIT_S
    hosts: list[dict] = []
    while len(hosts) < 2 or {one["state"] for one in hosts} != {"paused"}:  # looked at again and again, they wait on
        assert time.monotonic() < give_up, hosts
        ran = loadscope("attach", "--json", folder)
        hosts = ran.json["hosts"] if ran.exit_code == 0 else []
    assert [one["why"] for one in hosts] == ["start"] * 2
    together = Together.connect(folder)
    settle(together)
    together.breakpoints(['parameter ~ "*layers.1*in_proj_ba*" and rank = 1'])
    together.run("breakpoint")
    first, second = settle(together)
    assert first == second
    assert "layers.1" in first[0]
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
