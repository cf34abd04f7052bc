"""Forked and spawned children, threads as ranks, killed hosts and full disks leave what they did to read."""

from __future__ import annotations

import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

LOAD = """
from toyengine.models.toy import Model
from toyengine.reading import iterate, open_checkpoint
def load(rank=None):
    import toyengine.ranks
    if rank is not None: toyengine.ranks.here.rank = rank
    model = Model(); model.load_weights(iterate(open_checkpoint("x"))); return model.values()
"""
ENDLESS = LOAD + "import time; print('ready', flush=True)\nwhile True: load(); time.sleep(0.001)\n"


@contextmanager
def endless_host(toy) -> Iterator[subprocess.Popen[str]]:
    """A host that loads until it is killed; no test leaves it behind."""
    host = toy.start(ENDLESS)
    try:
        assert host.stdout.readline() == "ready\n"
        yield host
    finally:
        host.kill()
        host.communicate()


def calls_by_pid(events) -> dict[int, int]:
    pids = {event.pid for event in events}
    return {pid: sum(e.pid == pid and e.kind == "loader.called" for e in events) for pid in pids}


def test_a_forked_child_has_a_stream_of_its_own(toy):
    host = toy.run(
        LOAD
        + """
import os, sys
load()
pid = os.fork()
load()
if pid == 0: sys.exit(0)
os.waitpid(pid, 0); print(os.getpid(), pid)
"""
    )
    parent, child = map(int, host.out.split())
    assert calls_by_pid(host.events) == {parent: 6, child: 3}
    started = {e.pid: e.body for e in host.of("process.started")}
    assert started[child]["parent_pid"] == parent


def test_a_child_of_multiprocessing_by_fork_loses_nothing_at_its_end(toy):
    host = toy.run(
        LOAD
        + """
import multiprocessing
load()
child = multiprocessing.get_context("fork").Process(target=load)
child.start(); child.join(); print(child.exitcode)
"""
    )
    assert host.out == "0\n"
    assert sorted(calls_by_pid(host.events).values()) == [3, 3]


def test_a_spawned_child_is_armed_by_its_start(toy):
    toy.write("sitecustomize.py", "from inspectors.probe.bootstrap import arm; arm(is_at_startup=True)\n")
    toy.write("jobs.py", LOAD)
    toy.write(
        "main.py",
        """
import multiprocessing, jobs
if __name__ == "__main__":
    children = [multiprocessing.get_context("spawn").Process(target=jobs.load, args=(rank,)) for rank in range(2)]
    for child in children: child.start()
    for child in children: child.join(); print(child.exitcode)
""",
    )
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=toy.folder, env=toy.environment(), capture_output=True, text=True,
        check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "0\n0\n", done.stderr
    events = toy.events()
    assert sorted(calls_by_pid(events).values()) == [0, 3, 3]  # the parent imports the engine and loads nothing
    assert {e.rank for e in events if e.kind == "loader.called"} == {0, 1}


def test_threads_that_are_ranks_do_not_mix_their_spans(toy):
    host = toy.run(
        LOAD
        + """
import threading
threads = [threading.Thread(target=lambda r=rank: [load(r) for _ in range(50)]) for rank in range(4)]
for t in threads: t.start()
for t in threads: t.join()
"""
    )
    by_seq = {e.seq: e for e in host.events}
    calls = host.of("loader.called")
    assert len(calls) == 4 * 50 * 3
    assert all(by_seq[call.parent].rank == call.rank for call in calls)
    assert all(by_seq[call.parent].kind == "weights.mapped" for call in calls)
    assert [e.seq for e in host.events] == list(range(1, len(host.events) + 1))


def test_a_host_killed_at_any_moment_leaves_whole_events(toy):
    chance = random.Random(7)  # noqa: S311 - moments, not secrets
    for _ in range(5):
        with endless_host(toy) as host:
            time.sleep(chance.uniform(0.05, 0.5))
            host.send_signal(signal.SIGKILL)
        events = [e for e in toy.events() if e.pid == host.pid]
        assert [e.seq for e in events] == list(range(1, len(events) + 1))
        assert all(e.body for e in events if e.kind == "loader.called")


def test_a_full_disk_ends_the_recording_and_not_the_host(toy):
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

    code = LOAD + "for _ in range(6000): values = load()\nprint(values)\n"
    host = toy.run(code, preexec_fn=small_files)
    assert host.out == toy.run(LOAD + "print(load())", is_armed=False).out
    assert "recording ended, the host goes on" in host.err
    assert host.err.count("\n") == 1
    assert len(host.of("loader.called")) > 100
    assert [e.seq for e in host.events] == list(range(1, len(host.events) + 1))


def test_a_session_that_cannot_be_written_ends_the_recording_and_not_the_host(toy, load_code):
    (toy.session / "streams").symlink_to("/proc/self/fdinfo")  # nobody can make a file there, not even root
    host = toy.run(load_code)
    (toy.session / "streams").unlink()
    assert host.code == 0
    assert host.out == toy.run(load_code, is_armed=False).out
    assert host.err.count("\n") == 1
    assert "recording ended, the host goes on" in host.err


def test_a_running_host_can_be_read(toy):
    with endless_host(toy):
        deadline = time.monotonic() + 20
        while not any(e.kind == "loader.called" for e in toy.events()) and time.monotonic() < deadline:
            time.sleep(0.02)
        first = len(toy.events())
        while len(toy.events()) <= first and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(toy.events()) > first > 0


def test_a_stream_that_ended_well_needs_no_log_beside_it(toy):
    toy.run(LOAD + "load()")
    assert [path.suffix for path in (toy.session / "streams").iterdir()] == [".sqlite"]
