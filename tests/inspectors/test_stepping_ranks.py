"""Several hosts are stepped as one: whatever their speed, none goes past the call of the rank that is stepped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from sessions.control import ControlError
from sessions.together import Together

LIMIT_S = 60
NAMES = ("a.weight", "b.weight", "c.weight")
HOST = """
import os, time
from toyengine import ranks
from toyengine.models.toy import Model
from toyengine.reading import iterate, open_checkpoint
from toyengine.torch.distributed.meeting import all_reduce
ranks.here.rank, pause_s, names = {rank}, {pause_s}, {names}
values = dict(open_checkpoint("x"))
def one_by_one():
    for name in names:
        if name == "wait":
            while not os.path.exists("go"):
                time.sleep(0.001)
        elif name == "meet":
            all_reduce({rank}, {size})
        elif name == "raise":
            raise OSError("the disk is gone")
        else:
            time.sleep(pause_s)  # the speed of this rank
            yield from iterate([(name, values[name])])
model = Model()
model.load_weights(one_by_one())
print(model.values())
"""
MEETING = """
import pathlib, time
def all_reduce(rank, size):
    pathlib.Path(f"arrived-{rank}").touch()
    while len(list(pathlib.Path(".").glob("arrived-*"))) < size:
        time.sleep(0.001)
"""


class Ranks:
    """Toy hosts of one session, of different speed, and the client that steps them."""

    def __init__(self, toy) -> None:
        self.toy, self.hosts = toy, {}
        toy.write("toyengine/torch/distributed/meeting.py", MEETING)
        self.together: Together | None = None

    def start(self, *loads: tuple[str, ...], size: int = 0, speeds=(0.0, 0.02, 0.005, 0.01), **manifest) -> Together:
        self.toy.write_manifest(**{"is_paused_at_start": True, **manifest})
        for rank, names in enumerate(loads):
            self.add(rank, names, size or len(loads), speeds[rank])
        self.connect()
        self.until(lambda: len(self.together.ranks()) >= len(loads), "all are there")
        return self.together

    def add(self, rank: int, names: tuple[str, ...], size: int = 1, pause_s: float = 0.0) -> None:
        code = HOST.format(rank=rank, names=names, size=size, pause_s=pause_s)
        self.hosts[rank] = self.toy.start(code)

    def connect(self) -> None:
        give_up = time.monotonic() + LIMIT_S
        while (together := Together.connect(self.toy.session)) is None:
            assert time.monotonic() < give_up
        self.together = together

    def until(self, test: Callable[[], bool], what: str) -> None:
        give_up = time.monotonic() + LIMIT_S
        while not test():
            assert time.monotonic() < give_up, (what, self.together.ranks())
            self.together.wait(0.02)
            self.together.state()

    def settle(self) -> list[tuple[str, int, int]]:
        """Wait until nobody moves any more; the call at which each rank is held."""
        self.until(lambda: self.together.state()["state"] == "paused", "paused")
        self.until(lambda: all(one.state != "running" for one in self.together.ranks()), "all are held")
        return [self.call(one) for one in self.together.ranks()]

    def step(self, until: str) -> list[tuple[str, int, int]]:
        self.together.run(until)
        return self.settle()

    @staticmethod
    def call(one) -> tuple[str, int, int] | str:
        if one.state != "paused":
            return one.state
        return (one.call["parameter"], one.call["occurrence"], one.number) if one.call else ("", 0, one.number)

    def go(self) -> None:
        """Hosts that load nothing yet begin."""
        (self.toy.folder / "go").touch()

    def recorded(self, rank: int) -> int:
        """How many loader calls the rank has really made, read from its stream by other code."""
        return sum(event.kind == "loader.called" and event.rank == rank for event in self.toy.events())

    def end(self) -> None:
        if self.together is not None:
            self.together.close()
        for host in self.hosts.values():
            host.kill()
            host.communicate()


@pytest.fixture
def ranks(toy) -> Iterator[Ranks]:
    made = Ranks(toy)
    yield made
    made.end()


def test_next_holds_every_rank_at_the_same_call_whatever_its_speed(ranks):
    ranks.start(NAMES * 3, NAMES * 3, NAMES * 3)
    for number in range(1, 10):
        call = (NAMES[(number - 1) % 3], (number + 2) // 3, number)
        assert ranks.step("next") == [call] * 3
        assert [ranks.recorded(rank) for rank in range(3)] == [number] * 3
    ranks.together.release()
    for host in ranks.hosts.values():
        out, err = host.communicate(timeout=LIMIT_S)
        assert (host.returncode, out) == (0, "{'a.weight': [1, 2], 'b.weight': [3, 4], 'c.weight': [5]}\n"), err


@pytest.mark.parametrize("shown", [0, 1])
def test_a_breakpoint_that_only_one_rank_hits_holds_all_at_its_call(ranks, shown):
    together = ranks.start(NAMES * 5, NAMES * 5)
    ranks.settle()
    assert together.show(shown)
    together.breakpoints(['rank = 1 and parameter ~ "b.*" and tensor_bytes > 0'])
    for occurrence in (1, 2, 3):
        assert ranks.step("breakpoint") == [("b.weight", occurrence, 3 * occurrence - 1)] * 2
    why = "breakpoint 1" if shown == 1 else "breakpoint 1 on rank 1"
    assert (together.state()["why"], together.state()["rank"]) == (why, shown)
    assert together.inspect("source")["name"] == "b.weight"


@pytest.mark.parametrize("speeds", [(0.0, 0.02), (0.02, 0.0)])
def test_an_exception_of_one_rank_finds_the_others_in_the_call_in_which_it_was(ranks, speeds):
    together = ranks.start(NAMES * 2, (*NAMES, "a.weight", "raise"), speeds=speeds)
    together.breakpoints(["exception"])
    places = ranks.step("breakpoint")
    assert places[1] == ("", 0, 4)
    assert places[0] == ("b.weight", 2, 5)  # the call to which rank 1 did not come
    assert ranks.recorded(0) == 5
    assert together.ranks()[1].why == "exception"


def test_parameter_and_layer_lead_all_ranks_to_the_same_call(ranks):
    load = ("a.weight", "a.weight", "a.weight", "b.weight", "b.weight", "c.weight")
    ranks.start(load, load)
    assert ranks.step("next") == [("a.weight", 1, 1)] * 2
    assert ranks.step("parameter") == [("b.weight", 1, 4)] * 2
    assert ranks.step("parameter") == [("c.weight", 1, 6)] * 2


def test_events_and_ends_of_spans_never_leave_a_rank_past_the_next_call(ranks):
    together = ranks.start(NAMES, NAMES)
    ranks.step("next")
    kinds = []
    while together.state()["number"] < 2:
        places = ranks.step("any")
        kinds.append(places[0])
        assert ranks.recorded(1) <= places[0][2] + 1
    assert len(kinds) > 1
    assert ranks.step("next") == [("c.weight", 1, 3)] * 2
    assert ranks.step("out") == [("", 0, 3), "ended"]


def test_a_rank_without_the_call_waits_for_the_others_and_does_not_hold_them(ranks):
    together = ranks.start(("a.weight", "b.weight", "a.weight"), ("c.weight", "a.weight"))
    assert ranks.step("next") == [("a.weight", 1, 1), ("c.weight", 1, 1)]
    assert ranks.step("next") == [("b.weight", 1, 2), ("c.weight", 1, 1)]
    together.show(1)
    assert ranks.step("next") == [("b.weight", 1, 2), ("a.weight", 1, 2)]
    together.breakpoints([])
    together.run("breakpoint")
    ranks.until(lambda: together.state()["state"] == "ended", "both came to their end")
    assert [host.wait(LIMIT_S) for host in ranks.hosts.values()] == [0, 0]


def test_a_rank_that_waits_for_the_others_in_a_collective_is_told_and_lets_them_go_on(ranks):
    together = ranks.start(("a.weight", "b.weight", "c.weight", "meet"), ("a.weight", "meet", "b.weight"))
    assert ranks.step("next") == [("a.weight", 1, 1)] * 2
    together.run("next")
    ranks.until(lambda: any(one.collective for one in together.ranks()), "rank 1 is in its collective")
    one = together.ranks()[1]
    assert (one.name, one.state, one.collective) == ("rank 1", "running", "all_reduce")
    assert ranks.call(together.ranks()[0]) == ("b.weight", 1, 2)
    together.run("next")
    ranks.until(lambda: ranks.call(together.ranks()[0]) == ("c.weight", 1, 3), "rank 0 went on alone")
    together.run("breakpoint")  # rank 0 comes to the collective, so both go on
    ranks.until(lambda: together.state()["state"] == "ended", "both came to their end")


def test_collectives_between_the_calls_are_met(ranks):
    load = ("a.weight", "meet", "b.weight", "c.weight")
    ranks.start(load, load)
    assert [ranks.step("next")[0][0] for _ in NAMES] == list(NAMES)


def test_a_rank_that_ends_or_is_killed_while_it_is_held_leaves_the_others_held_and_steppable(ranks):
    together = ranks.start(NAMES, NAMES, ("a.weight",))
    assert ranks.step("next") == [("a.weight", 1, 1)] * 3
    assert ranks.step("next") == [("b.weight", 1, 2)] * 2 + ["ended"]
    os.kill(ranks.hosts[0].pid, signal.SIGKILL)  # the shown one
    ranks.until(lambda: together.ranks()[0].state == "ended", "its end was seen")
    assert together.state()["rank"] == 1
    assert ranks.step("next") == ["ended", ("c.weight", 1, 3), "ended"]


def test_hosts_that_come_while_others_are_held_wait_and_are_brought_to_their_call(ranks):
    together = ranks.start(NAMES)
    ranks.step("next")
    ranks.step("next")
    ranks.add(1, NAMES)
    ranks.until(lambda: len(together.ranks()) == 2, "the newcomer was found")
    assert ranks.settle() == [("b.weight", 1, 2)] * 2
    assert ranks.step("next") == [("c.weight", 1, 3)] * 2


def test_a_newcomer_of_a_session_that_does_not_begin_paused_waits_too(ranks):
    ranks.start(NAMES * 100, is_paused_at_start=False, speeds=(0.05,))
    ranks.together.pause()
    ranks.settle()
    ranks.step("next")
    ranks.add(1, NAMES * 100)
    ranks.until(lambda: len(ranks.together.ranks()) == 2, "the newcomer was found")
    first, second = ranks.settle()
    assert first == second


def test_a_host_that_does_not_load_holds_nobody_up(ranks):
    ranks.toy.write_manifest(is_paused_at_start=True)
    idle = ranks.toy.start("import toyengine, sys; sys.stdin.read()", stdin=-1)
    together = ranks.start(NAMES, NAMES)
    ranks.hosts["idle"] = idle
    together.patience_with_idle_s = 0.1
    ranks.until(lambda: len(together.ranks()) == 3, "all are there")
    together.run("next")
    ranks.until(lambda: together.state()["state"] == "paused", "paused")
    together.run("next")
    held = lambda: [ranks.call(one) for one in together.ranks()]  # noqa: E731
    ranks.until(lambda: held() == [("b.weight", 1, 2)] * 2 + ["running"], "both loading ranks are held")
    assert together.ranks()[2].name == f"process {idle.pid}"


def test_pausing_running_ranks_brings_those_behind_to_the_call_of_the_furthest(ranks):
    load = ("wait", *NAMES * 200)
    together = ranks.start(load, load, is_paused_at_start=False, speeds=(0.001, 0.01))
    ranks.go()
    ranks.until(lambda: ranks.recorded(1) > 1, "both are at work")
    together.pause()
    ranks.settle()
    places = ranks.step("next")
    assert places[0] == places[1]
    assert ranks.recorded(0) == ranks.recorded(1) == places[0][2]


def test_breakpoints_set_on_running_ranks_hold_them_at_one_call(ranks):
    load = ("wait", *("a.weight", "b.weight") * 100, "c.weight")
    together = ranks.start(load, load, is_paused_at_start=False, speeds=(0.001, 0.01))
    ranks.go()
    ranks.until(lambda: ranks.recorded(1) > 1, "both are at work")
    together.breakpoints(["parameter ~ 'c.*' and rank = 0"])
    assert ranks.settle() == [("c.weight", 1, 201)] * 2


def test_one_that_leaves_lets_all_go_but_a_host_that_is_held_at_its_exception(ranks):
    loads = ("wait", *NAMES * 200), ("wait", "a.weight", "raise")
    together = ranks.start(*loads, is_paused_at_start=False, hold_seconds=300, speeds=(0.01, 0.001))
    ranks.go()
    ranks.until(lambda: any(one.why == "exception" for one in together.ranks()), "rank 1 is held")
    together.close()
    assert ranks.hosts[0].wait(LIMIT_S) == 0
    ranks.connect()
    (place,) = ranks.together.ranks()
    assert (place.rank, place.state, place.why) == (1, "paused", "exception")
    assert ranks.hosts[1].poll() is None
    ranks.together.release()
    assert "the disk is gone" in ranks.hosts[1].communicate(timeout=LIMIT_S)[1]


def test_leaving_lets_all_ranks_go_and_takes_the_mark_away(ranks):
    ranks.start(NAMES, NAMES)
    ranks.step("next")
    assert (ranks.toy.session / "control" / "stepped").read_text() == str(os.getpid())
    ranks.together.close()
    assert [host.wait(LIMIT_S) for host in ranks.hosts.values()] == [0, 0]
    assert list((ranks.toy.session / "control").iterdir()) == []


def test_a_condition_that_cannot_be_read_is_refused_by_all(ranks):
    together = ranks.start(NAMES, NAMES)
    with pytest.raises(ControlError, match="expected"):
        together.breakpoints(["parameter ~"])
    assert ranks.step("next") == [("a.weight", 1, 1)] * 2
