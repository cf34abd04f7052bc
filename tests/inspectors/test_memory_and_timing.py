"""Memory and timing: samples where they are due, a thread that bothers nobody, and a planted peak that is found."""

import sys
from types import SimpleNamespace

import pytest

from inspectors.probe import usage
from sessions.memory import memory
from sessions.session import Session
from sessions.timing import timing

WITH_BOTH = [
    "inspectors.checkpoint", "inspectors.decisions", "inspectors.kernels", "inspectors.memory", "inspectors.timing",
    "inspectors.weights",
]  # fmt: skip
PLANTED_BYTES = 64 << 20
LARGE_TEMPORARY = f"""
def default_loader(param, loaded_weight):
    if loaded_weight.values == [3, 4]:
        temporary = bytearray(b"x") * {PLANTED_BYTES}
    param.values[:] = loaded_weight.values
"""
SLOW_LOADER = """
import time
def default_loader(param, loaded_weight):
    if loaded_weight.values == [3, 4]:
        time.sleep(0.3)
    param.values[:] = loaded_weight.values
"""


@pytest.fixture
def both(toy):
    toy.write_manifest(inspectors=WITH_BOTH, level="values")
    return toy


def test_a_temporary_of_one_loader_is_the_peak_and_is_told_by_its_parameter(both, load_code):
    both.write("toyengine/loading.py", LARGE_TEMPORARY)
    host = both.run(load_code)
    assert (host.code, host.err) == (0, "")
    causes = {event.body["cause"] for event in host.of("memory.sampled")}
    assert {"stage", "call"} <= causes
    session = Session.open(both.session)
    (found,) = memory(session)
    peak = found.peak
    assert peak.bytes >= 0.9 * PLANTED_BYTES
    assert (peak.during[0].stage, peak.during[0].name) == ("weight.load", "b.weight")
    assert found.end_bytes < found.peak_bytes - 0.9 * PLANTED_BYTES  # it was given back
    session.close()


def test_at_level_calls_the_clock_and_the_stages_are_enough_to_find_it(both, load_code):
    both.write("toyengine/loading.py", LARGE_TEMPORARY)
    both.write_manifest(level="calls")
    host = both.run(load_code)
    assert "call" not in {event.body["cause"] for event in host.of("memory.sampled")}
    session = Session.open(both.session)
    (found,) = memory(session)
    assert found.peak.bytes >= 0.9 * PLANTED_BYTES
    assert "b.weight" in [culprit.name for culprit in found.peak.during]
    session.close()


def test_a_stage_is_told_with_the_processor_time_it_took(both, load_code):
    both.write("toyengine/loading.py", SLOW_LOADER)
    host = both.run(load_code)
    timed = {event.body["of_stage"]: event for event in host.of("stage.timed")}
    assert set(timed) == {"checkpoint.open", "weight.map"}
    mapped = timed["weight.map"]
    # a loader that sleeps takes time and no processor
    assert mapped.dur_ns > 3e8 > 3 * mapped.body["thread_cpu_ns"]
    session = Session.open(both.session)
    assert timing(session).parameters[0].parameter == "b.weight"
    session.close()


def test_no_thread_is_there_before_an_engine_enters_a_stage_and_none_holds_up_the_end(both):
    host = both.run("""
import threading
def named(): return [t.daemon for t in threading.enumerate() if t.name == "loadscope-memory"]
import toyengine.models.toy as toy
from toyengine.reading import iterate, open_checkpoint
model = toy.Model()
print(named())
model.load_weights(iterate(open_checkpoint("x")))
print(named())
""")
    assert (host.code, host.out, host.err) == (0, "[]\n[True]\n", "")


def test_the_thread_ends_when_the_engine_rests_and_comes_back_with_the_next_stage(both):
    host = both.run("""
import threading
import toyengine.models.toy as toy
from toyengine.reading import iterate, open_checkpoint
from inspectors.probe import sampler
sampler.REST_S = 0
def load():
    toy.Model().load_weights(iterate(open_checkpoint("x")))
    return [t for t in threading.enumerate() if t.name == "loadscope-memory"]
for thread in load(): thread.join(20); print(thread.is_alive())
for thread in load(): thread.join(20); print(thread.is_alive())
""")
    assert (host.out, host.err) == ("False\nFalse\n", "")


def test_a_forked_child_has_samples_of_its_own(both):
    host = both.run("""
import multiprocessing, threading
import toyengine.models.toy as toy
from toyengine.reading import iterate, open_checkpoint
def load():
    toy.Model().load_weights(iterate(open_checkpoint("x")))
    print([t.is_alive() for t in threading.enumerate() if t.name == "loadscope-memory"], flush=True)
load()
child = multiprocessing.get_context("fork").Process(target=load)
child.start(); child.join(); print(child.exitcode)
""")
    assert host.out == "[True]\n[True]\n0\n"
    sampled = {event.pid for event in host.of("memory.sampled")}
    assert sampled == {event.pid for event in host.of("weights.mapped")}
    assert len(sampled) == 2


def test_a_look_that_fails_ends_the_inspector_and_nothing_else(both, load_code):
    host = both.run(f"""
import toyengine
from inspectors.probe import sampler
def broken(): raise OSError("no /proc today")
sampler.host_memory = broken
{load_code}""")
    assert host.code == 0
    assert [event.body["inspector"] for event in host.of("inspector.faulted")] == ["memory"]
    assert host.of("memory.sampled") == []
    assert len(host.of("loader.called")) == 3


def test_where_there_is_no_proc_the_peak_stands_for_what_is_held(monkeypatch):
    monkeypatch.setattr(usage, "_STATUS", "/nowhere")
    monkeypatch.setattr(usage, "_IO", "/nowhere")
    seen = usage.host_memory()
    assert seen.rss_bytes == seen.peak_rss_bytes > 1 << 20
    assert (seen.file_bytes, usage.spent().read_bytes) == (-1, -1)


def test_a_device_is_asked_through_the_hosts_own_torch_only(monkeypatch):
    asked = []

    def stats(*index):
        asked.append(index)
        return {"allocated_bytes.all.current": 3, "allocated_bytes.all.peak": 7, "reserved_bytes.all.current": 9}

    accelerator = SimpleNamespace(
        current_accelerator=lambda: SimpleNamespace(type="chip"), memory_stats=stats, current_device_index=lambda: 2
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(accelerator=accelerator))
    assert usage.device_index() == 2
    assert usage.device_memory(2) == ("chip:2", 3, 9, 7)
    assert asked == [(), (2,)]
    accelerator.memory_stats = lambda *_: {}  # an allocator that nobody has used
    assert usage.device_memory(None) == ("", -1, -1, -1)
    monkeypatch.delitem(sys.modules, "torch")
    assert usage.device_memory(None) == ("", -1, -1, -1)


def test_a_backend_that_torch_cannot_ask_is_asked_itself_or_left_alone(monkeypatch):
    def stats(*_):
        raise RuntimeError("Allocator for chip is not a DeviceAllocator.")

    accelerator = SimpleNamespace(current_accelerator=lambda: SimpleNamespace(type="chip"), memory_stats=stats)
    torch = SimpleNamespace(accelerator=accelerator)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(usage, "_refused", set())
    assert usage.device_memory(None) == ("", -1, -1, -1)
    torch.chip = SimpleNamespace(
        is_initialized=lambda: True, memory_allocated=lambda *_: 4, memory_reserved=lambda *_: 5,
        max_memory_allocated=lambda *_: 6,
    )  # fmt: skip
    assert usage.device_memory(0) == ("chip:0", 4, 5, 6)
    torch.chip.is_initialized = lambda: False
    assert usage.device_memory(0) == ("", -1, -1, -1)
