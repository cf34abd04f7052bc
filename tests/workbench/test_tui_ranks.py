"""The screens on a session of several hosts: every rank is shown, the reader picks whose tensors, keys move all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tui_driver import opened_at

from sessions.ranks import RankPlace
from workbench.rankwords import warning
from workbench.tui.ranks import ranks_line

ROOT = Path(__file__).resolve().parents[2]
ENGINE = """
import os, sys
class Parameter(list):
    shape = property(lambda self: (len(self),))
def load(param, loaded_weight):
    param[:] = loaded_weight
class Model:
    def load_weights(self, weights):
        for name, tensor in weights:
            load(self.parameters[name], tensor)
    def named_parameters(self):
        return list(self.parameters.items())
def rank():
    return int(os.environ["RANK"])
def read():
    for number in range(20):
        yield f"layers.{number}.weight", Parameter([number, rank()])
"""
ADAPTER = """
from inspectors.probe.tracepoint import Engine, Tracepoint as T
ENGINE = Engine(name="toy", module="toy_ranks", distribution="toy", rank="toy_ranks:rank", command=lambda launch: (),
    tracepoints=(
        T("tensor.read", "tensor.read", "toy_ranks:read", {"name": "result.0", "tensor": "result.1"}),
        T("weight.map", "weights.mapped", "toy_ranks:Model.load_weights", {"model": "self"}),
        T("weight.load", "loader.called", "toy_ranks:load", {"parameter": "param", "tensor": "loaded_weight"}),
    ))
"""
HOST = """
from inspectors.probe.bootstrap import arm
arm()
import toy_ranks
model = toy_ranks.Model()
model.parameters = {f"layers.{number}.weight": toy_ranks.Parameter([0, 0]) for number in range(20)}
model.load_weights(toy_ranks.read())
"""


@pytest.fixture
def hosts(tmp_path) -> Iterator[list[subprocess.Popen[str]]]:
    """Three ranks of a toy engine in processes of their own, all waiting at their start."""
    from sessions.manifest import Manifest

    for name, text in (("toy_ranks", ENGINE), ("toy_adapter", ADAPTER)):
        (tmp_path / f"{name}.py").write_text(text)
    inspectors = ("inspectors.checkpoint", "inspectors.weights")
    session = tmp_path / "session"
    session.mkdir()
    Manifest(name="toy", level="calls", engines=("toy_adapter",), inspectors=inspectors, is_paused_at_start=True).write(
        session
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LOADSCOPE_", "PYTHON"))}
    armed = {**kept, "PYTHONPATH": f"{tmp_path}:{ROOT}", "LOADSCOPE_SESSION": str(session)}
    started = [
        subprocess.Popen([sys.executable, "-S", "-c", HOST], env={**armed, "RANK": str(rank)}, text=True)
        for rank in range(3)
    ]
    yield started
    for host in started:
        host.kill()
        host.wait()


def numbers(it) -> list[int]:
    return [place.number for place in it.session.host.ranks if place.state == "paused"]


async def test_keys_move_all_ranks_and_the_reader_picks_whose_tensor_is_at_hand(hosts, tmp_path):
    async with opened_at(tmp_path / "session", (140, 40)) as it:
        await it.until(lambda: len(numbers(it)) == 3, "three ranks")
        await it.shows("▸0 ‖  1–2 ‖")
        assert "collectives that wait for a held rank time out" in it.text
        for number in (1, 2, 3):
            await it.press("n")
            await it.until(lambda number=number: numbers(it) == [number] * 3, f"all at call {number}")
        await it.press("B", *"rank", "space", "=", "space", "2", "enter")
        await it.shows("breakpoints: 1 rank = 2")
        await it.press("c")
        await it.until(lambda: numbers(it) == [4] * 3, "all at the call at which rank 2 stopped")
        await it.shows("breakpoint 1 on rank 2")
        await it.press("i")
        await it.shows("tensor at hand")
        await it.press("q")
        await it.press("greater_than_sign", "greater_than_sign")
        await it.until(lambda: it.session.host.pid == hosts[1].pid, "rank 1 is shown")
        await it.shows("0 ‖  ▸1 ‖  2 ‖")
        await it.press("exclamation_mark")
        await it.shows("all ranks run on")
        await it.until(lambda: [host.poll() for host in hosts] == [0, 0, 0], "all came to their end")


async def test_a_rank_that_is_killed_is_told_and_the_others_go_on(hosts, tmp_path):
    async with opened_at(tmp_path / "session", (140, 40)) as it:
        await it.until(lambda: len(numbers(it)) == 3, "three ranks")
        await it.press("n")
        await it.until(lambda: numbers(it) == [1] * 3, "all at the first call")
        os.kill(hosts[1].pid, signal.SIGKILL)
        await it.shows("1 ✗ ended")
        await it.press("n")
        await it.until(lambda: numbers(it) == [2] * 2, "the two others at the second call")


async def test_leaving_the_screens_lets_all_ranks_go(hosts, tmp_path):
    async with opened_at(tmp_path / "session", (140, 40)) as it:
        await it.until(lambda: len(numbers(it)) == 3, "three ranks")
        await it.press("n")
        await it.until(lambda: numbers(it) == [1] * 3, "all at the first call")
        await it.press("q", "q")
    assert [host.wait(60) for host in hosts] == [0, 0, 0]


def test_a_workbench_that_is_interrupted_lets_all_ranks_go(hosts, tmp_path):
    code = (
        "import signal, sys; from sessions.together import Together\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # in the background it may be ignored
        "while (it := Together.connect(sys.argv[1])) is None or len(it.ranks()) < 3: pass\n"
        "while it.wait(1)['state'] != 'paused': pass\n"
        "it.run('next'); print('stepping', flush=True)\n"
        "while True: it.wait(1)"
    )
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    client = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "session")], env=variables, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert client.stdout.readline() == "stepping\n"
    client.send_signal(signal.SIGINT)
    client.communicate(timeout=60)
    assert [host.wait(60) for host in hosts] == [0, 0, 0]


def place(rank: int, state: str = "paused", number: int = 7, **more) -> RankPlace:
    call = {"parameter": f"p{number}", "checkpoint_name": "", "shard_id": "", "expert_id": -1, "occurrence": 1}
    more = {"call": call if state == "paused" else None, **more}
    return RankPlace(100 + rank, rank, state, "together", number, **more)


def test_many_ranks_are_one_line_in_which_those_that_are_elsewhere_stand_out():
    places = [place(0, is_shown=True), *(place(rank) for rank in range(1, 6)), place(6, number=5)]
    places += [
        place(7, "running", collective="all_reduce"),
        place(8, "ended"),
        place(9, "ended"),
        place(-1, "running", 0),
    ]
    left, right = ranks_line(places)
    assert left.plain == (
        "ranks  ▸0 ‖  1–5 ‖  6 ‖ at call 5  7 ● waits in all_reduce  8–9 ✗ ended  pid 99 ● no loader call yet"
    )
    assert right.plain == "collectives that wait for a held rank time out: by default 30 min, NCCL's 10 min"
    assert ranks_line(places[:1]) is None


def test_the_warning_has_the_least_time_of_each_backend_and_is_silent_when_nobody_is_held():
    told = [place(0, timeouts={"gloo": 1800.0}), place(1, timeouts={"gloo": 45.0, "nccl": 600.0})]
    assert warning(told) == "collectives that wait for a held rank time out after 45 s (gloo), 10 min (nccl)"
    assert warning(told[:1]) == warning([place(0, "running"), place(1, "running")]) == ""
