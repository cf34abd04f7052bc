"""What is recorded equals what other mechanisms count, on every architecture, and watching changes no bit of a load.

The complete form, with every format, level and fault and a hundred kills, is `sweep_trust.py`, to be run by hand.
"""

from __future__ import annotations

import importlib.util
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from sessions.alignment import align
from sessions.session import Session

pytest.importorskip("torch")


def _load(name):
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"loadscope_tests_{name}", path)
    module = sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


runs = _load("trust_runs")
kills = _load("trust_kills")
METHODS = ("fp8 block", "ct int8", "ct int4", "mxfp4", "awq", "modelopt nvfp4")
"""One for each architecture here; `sweep_trust.py` has all of them on all."""

FAULTY = """
class Faulty:
    stages, level, tracepoints, calls = frozenset({"weight.load"}), "calls", (), 0
    def start(self, probe): self.calls = 0
    def enter(self, call):
        self.calls += 1
        if self.calls == 17: raise RuntimeError("the seventeenth call")
    def leave(self, call): pass
    def failed(self, call, error): pass
INSPECTOR = Faulty()
"""
LOST = """
import dataclasses
from backends.engines import native
def lost(one):
    return dataclasses.replace(one, target=one.target + "_gone") if one.stage in LOST else one
LOST = {"weights.process", "model.ready"}
ENGINE = dataclasses.replace(native.ENGINE, tracepoints=tuple(map(lost, native.ENGINE.tracepoints)))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trust")


@pytest.fixture(scope="module")
def models(folder):
    """Every architecture plain and quantized, and one whose load fails."""
    made = []
    for architecture, method in zip(runs.formats().ARCHITECTURES, METHODS, strict=True):
        made += [runs.write_model(folder, architecture, "bf16"), runs.write_model(folder, architecture, method)]
    return [*made, runs.write_broken(made[1])]


@pytest.fixture(scope="module")
def threaded(models, folder):
    return (Path(shutil.copytree(models[0], folder / "in-threads")),)


@pytest.fixture(scope="module")
def plain(models, threaded):
    """All of them in one process without the probe, counted by Python's profiler and a dispatch mode."""
    return runs.run(models, threads=threaded, counts=True)


@pytest.fixture(scope="module")
def watched(models, threaded, folder):
    """The same in one process at the deepest level."""
    runs.write_manifest(folder / "watched", "tensors")
    return runs.run(models, folder / "watched", threads=threaded)


def test_no_bit_of_any_parameter_or_logit_changes_under_the_deepest_level(plain, watched, models):
    assert plain.code == watched.code == 0, watched.err
    assert plain.said.keys() == watched.said.keys()
    for name, said in plain.said.items():
        assert {k: v for k, v in watched.said[name].items() if k != "counts"} == {
            k: v for k, v in said.items() if k != "counts"
        }
    assert sum("logits" in said for said in plain.said.values()) == len(models)


def test_recall_is_complete_on_every_architecture(plain, watched, models):
    for model in models:
        counted, recorded = Counter(plain.said[model.name]["counts"]), watched.recorded[model.name]
        assert [recorded[kind] for kind in runs.COUNTED] == [counted[kind] for kind in runs.COUNTED], model.name
        assert counted["loader.called"] > 20
    assert not any(recorded["inspector.faulted"] for recorded in watched.recorded.values())


def test_a_load_that_fails_in_a_loader_is_recorded_up_to_the_call_that_raised(plain, watched, models):
    broken = models[-1].name
    assert plain.said[broken]["error"] == watched.said[broken]["error"]
    assert watched.recorded[broken]["stage.failed"] == 1
    assert watched.recorded[broken]["loader.called"] == plain.said[broken]["counts"]["loader.called"]
    assert watched.recorded[broken]["kernel.launched"] == watched.recorded[broken]["model.loaded"] == 0


def test_loader_calls_in_threads_of_a_pool_are_all_recorded(plain, watched, threaded, models):
    name = threaded[0].name
    assert watched.recorded[name]["loader.called"] == plain.said[name]["counts"]["loader.called"] > 0
    assert watched.said[name]["parameters"] == plain.said[name]["parameters"]


def test_ranks_that_are_processes_record_what_ranks_in_lockstep_do(plain, models, folder):
    model = models[9]
    runs.write_manifest(folder / "processes", "ledger")
    recorded, told = runs.run_processes(model, folder / "processes")
    counted = plain.said[model.name]["counts"]
    for kind in runs.COUNTED[:3]:
        assert sum(recorded[f"{kind} {rank}"] for rank in range(2)) == counted[kind] > 0, kind
        assert recorded[f"{kind} 0"] == recorded[f"{kind} 1"], kind
    # a process combines by itself what all ranks have, so it launches more than a rank in lockstep
    launches = sorted(one["counts"]["kernel.launched"] for one in told)
    assert sorted(recorded[f"kernel.launched {rank}"] for rank in range(2)) == launches
    assert {one["logits"] for one in told} == {plain.said[model.name]["logits"]}


def test_a_faulty_inspector_and_vanished_tracepoints_change_no_bit_and_lose_no_call(plain, models, folder):
    (folder / "faulty_at.py").write_text(FAULTY)
    (folder / "lost_adapter.py").write_text(LOST)
    inspectors = ["faulty_at", *runs.INSPECTORS]
    runs.write_manifest(folder / "faults", "ledger", engines=["lost_adapter"], inspectors=inspectors)
    some = models[2:6]
    found = runs.run(some, folder / "faults", path=str(folder))
    assert found.code == 0, found.err
    for model in some:
        said, wanted = found.said[model.name], plain.said[model.name]
        assert (said["parameters"], said["logits"]) == (wanted["parameters"], wanted["logits"])
        assert found.recorded[model.name]["loader.called"] == plain.said[model.name]["counts"]["loader.called"]
    every = sum(found.recorded.values(), Counter())
    assert every["inspector.faulted"] == 1
    assert every["tracepoint.missing"] == 2


LOAD = """
from toyengine.models.toy import Model
from toyengine.reading import iterate, open_checkpoint
for _ in range(1500):
    model = Model(); model.load_weights(iterate(open_checkpoint("x")))
print(model.values())
"""


def mounted(*words: object) -> bool:
    return subprocess.run(["mount", *map(str, words)], capture_output=True, check=False).returncode == 0


@pytest.fixture
def mount(toy):
    """Mounts something over the streams of the toy's session; skips where that is not allowed."""
    streams = toy.session / "streams"
    streams.mkdir()

    def over(*words: object) -> Path:
        if not shutil.which("mount") or not mounted(*words, streams):
            pytest.skip("nothing may be mounted here")
        return streams

    yield over
    while subprocess.run(["umount", "-l", str(streams)], capture_output=True, check=False).returncode == 0:
        pass


def test_a_disk_that_is_really_full_ends_the_recording_and_the_rest_stays_readable(toy, mount):
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs")
    host = toy.run(LOAD)
    assert host.code == 0
    assert host.out == toy.run(LOAD, is_armed=False).out
    assert "recording ended, the host goes on" in host.err
    assert host.err.count("\n") == 1
    session = Session.open(toy.session)
    assert session.count("loader.called") > 100
    assert [event.seq for event in session.page(0, len(session))] == list(range(1, len(session) + 1))
    session.close()


def test_a_folder_that_is_really_read_only_ends_the_recording_and_not_the_host(toy, mount):
    streams = mount("--bind", toy.folder)
    assert mounted("-o", "remount,bind,ro", toy.folder, streams)
    host = toy.run("import toyengine.models.toy as t\nfrom toyengine.reading import iterate, open_checkpoint\n"
                   "m = t.Model(); m.load_weights(iterate(open_checkpoint('x'))); print(m.values())")  # fmt: skip
    assert (host.code, host.out) == (0, "{'a.weight': [1, 2], 'b.weight': [3, 4], 'c.weight': [5]}\n")
    assert "recording ended, the host goes on" in host.err


def test_a_kill_at_any_moment_leaves_a_beginning_that_lacks_at_most_the_last_tenth_of_a_second(toy):
    times = toy.folder / "times"
    toy.write("toyengine/loading.py", kills.TIMED_LOADER.format(times=str(times)))
    whole = toy.run(LOAD.replace("1500", "2500"))
    assert whole.code == 0
    whole_session = toy.session.rename(toy.folder / "whole")
    chance, lengths = random.Random(11), []  # noqa: S311 - moments, not secrets
    for number in range(5):
        times.unlink(missing_ok=True)
        toy.write_manifest()
        host = toy.start("print('ready', flush=True)" + LOAD.replace("1500", "2500"))
        assert host.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.1, 0.6))
        host.send_signal(signal.SIGKILL)
        host.communicate()
        done = [int(line) for line in times.read_text().split("\n")[:-1]]
        killed, full = Session.open(toy.session), Session.open(whole_session)
        found = align(killed, full)
        assert found.is_alike, found.counts()
        assert found.alike == len(killed)
        lengths.append(len(killed))
        recorded = sum(row[6] == "c.weight" for row in killed.rows("loader.called", ("parameter",)))
        assert kills.lost_ms(done, recorded) <= kills.LIMIT_MS
        killed.close()
        full.close()
        toy.session.rename(toy.folder / f"killed-{number}")
    assert sum(lengths) > 0
