"""Time and memory of sessions whose every moment was set by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspectors.probe.events import (
    ForwardRan,
    KernelLaunched,
    LoaderCalled,
    MemorySampled,
    ParameterRegistered,
    ShardSplit,
    StageTimed,
    TensorListed,
    TensorRead,
    WeightsMapped,
    WeightsProcessed,
)
from inspectors.probe.recorder import Recorder
from sessions.launches import launches, passes
from sessions.memory import memory
from sessions.session import Session
from sessions.spans import lanes
from sessions.timing import BETWEEN, WAITING, timing

MS = 1_000_000
START = 10**9 * MS  # after whatever the recorder writes by itself


class Timed:
    """Records spans from and to given ms."""

    def __init__(self, folder):
        self.recorder = Recorder(folder)

    def span(self, body, rank, begin, end, inside=0):
        self.recorder._spans.stack[:] = [inside] if inside else []
        return self.recorder.measured(body, rank, START + int(begin * MS), int((end - begin) * MS))

    def sample(self, at, rss, peak=0, **facts):
        body = MemorySampled("clock", rss_bytes=rss, peak_rss_bytes=max(rss, peak), **facts)
        self.span(body, -1, at, at)


@pytest.fixture
def timed(tmp_path):
    return Timed(tmp_path)


@pytest.fixture
def closed(timed, tmp_path, opened):
    def close():
        timed.recorder.close()
        return opened(tmp_path)

    return close


def ms(cost):
    return round(cost.self_ns / MS, 6)


def two_ranks_in_lockstep(timed):
    maps = [timed.span(WeightsMapped("M", 1), rank, 0, 100) for rank in (0, 1)]
    timed.span(TensorRead("a", "BF16", (8, 8), 128), -1, 10, 20, inside=maps[0])
    for rank, begin in ((0, 20), (1, 50)):
        call = timed.span(LoaderCalled("a", "w", tensor_bytes=128), rank, begin, begin + 30, inside=maps[rank])
        timed.span(ShardSplit("w", "a", 0, 4 * rank, 4, 8, "narrow"), rank, begin + 1, begin + 1, inside=call)


def test_every_moment_of_a_process_is_in_one_stage(timed, closed):
    two_ranks_in_lockstep(timed)
    found = timing(closed())
    assert found.total_ns == 100 * MS
    assert {one.stage: ms(one) for one in found.stages} == {"weight.map": 30, "tensor.read": 10, "weight.load": 60}


def test_a_rank_that_waits_in_lockstep_is_said_to_wait(timed, closed):
    two_ranks_in_lockstep(timed)
    session = closed()
    found = timing(session, rank=1)
    assert {one.stage: ms(one) for one in found.stages} == {"weight.map": 30, "weight.load": 30, WAITING: 40}
    assert ms(timing(session, rank=0).stage(WAITING)) == 30


def test_bytes_are_those_that_the_cuts_left(timed, closed):
    two_ranks_in_lockstep(timed)
    found = timing(closed())
    assert (found.stage("tensor.read").bytes, found.stage("weight.load").bytes) == (128, 128)
    (parameter,) = found.parameters
    assert (parameter.calls, parameter.bytes, parameter.read_ns, parameter.copy_ns) == (2, 128, 10 * MS, 60 * MS)


def test_a_slow_file_is_told_apart_and_its_bytes_are_those_of_its_header(timed, closed):
    for name, file, begin, end in (("a", "1.st", 8, 108), ("b", "2.st", 8, 58), ("c", "2.st", 58, 60)):
        timed.recorder.point(TensorListed(name, "U8", (end - begin,), file, begin, end))
    for name, at, took in (("a", 0, 5), ("b", 10, 50), ("c", 70, 20)):
        timed.span(TensorRead(name, "uint8", (1,), 1), -1, at, at + took)
        timed.span(LoaderCalled(name, f"p.{name}", tensor_bytes=1), 0, at + took, at + took + 1)
    first, second = timing(closed()).files
    assert (first.file, first.tensors, first.bytes, first.read_ns, first.copy_ns) == ("1.st", 1, 100, 5 * MS, MS)
    assert (second.file, second.tensors, second.bytes, second.read_ns) == ("2.st", 2, 52, 70 * MS)


def test_post_processing_is_divided_among_the_parameters_of_its_module_by_their_bytes(timed, closed):
    for name, size in (("m.weight", 300), ("m.scale", 100), ("n.weight", 50)):
        timed.recorder.point(ParameterRegistered(name, size_bytes=size), 0)
    timed.span(WeightsProcessed("m"), 0, 0, 40)
    found = {one.parameter: one.process_ns / MS for one in timing(closed()).parameters}
    assert found == {"m.weight": 30, "m.scale": 10}


def test_what_lies_between_stages_is_a_row_of_its_own(timed, closed):
    timed.span(StageTimed("checkpoint.open", thread_cpu_ns=2 * MS, read_bytes=7, major_faults=1), -1, 0, 10)
    timed.span(WeightsProcessed("m"), 0, 25, 30)
    found = timing(closed())
    assert {one.stage: ms(one) for one in found.stages} == {"checkpoint.open": 10, "weights.process": 5, BETWEEN: 15}
    opened = found.stage("checkpoint.open")
    assert (opened.cpu_ns, opened.read_bytes, opened.major_faults) == (2 * MS, 7, 1)


def test_reads_that_two_threads_of_a_process_saw_are_counted_once_and_their_processor_time_twice(timed, closed):
    for rank in (0, 1):
        timed.span(WeightsMapped("M", 1), rank, 0, 10)
        timed.span(StageTimed("weight.map", thread_cpu_ns=3 * MS, read_bytes=50, major_faults=2), rank, 0, 10)
        timed.span(StageTimed("weight.map", thread_cpu_ns=1 * MS, read_bytes=20, major_faults=1), rank, 4, 6)
    mapped = timing(closed()).stage("weight.map")
    assert (mapped.cpu_ns, mapped.read_bytes, mapped.major_faults) == (6 * MS, 50, 2)


def test_a_span_that_never_ended_counts_up_to_the_last_event(timed, closed):
    span = timed.recorder.begin(WeightsMapped("M", 1), 0)
    timed.recorder._open[span].envelope[1] = START
    timed.span(LoaderCalled("a", "w"), 0, 10, 40, inside=span)
    found = timing(closed())
    assert ms(found.stage("weight.map")) + ms(found.stage("weight.load")) == found.total_ns / MS == 40


@st.composite
def nested(draw, depth=3):
    """(begin, end, children) with children inside and side by side, in ms."""
    if not depth:
        return []
    edges = sorted(draw(st.lists(st.integers(0, 60), max_size=6, unique=True)))
    pairs = zip(edges[::2], edges[1::2], strict=False)
    return [(a, b, [(a + (b - a) * c / 60, a + (b - a) * d / 60, x) for c, d, x in draw(nested(depth=depth - 1))])
            for a, b in pairs]  # fmt: skip


def write(timed, rank, spans, inside=0):
    for begin, end, inner in spans:
        body = WeightsMapped("M", 1) if inner and not inside else LoaderCalled("t", f"p{len(inner)}")
        write(timed, rank, inner, timed.span(body, rank, begin, end, inside))


@settings(max_examples=25, deadline=None)
@given(spans=st.lists(nested(), min_size=1, max_size=3))
def test_self_times_add_up_to_the_whole_however_spans_nest_and_ranks_overlap(spans, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nested")
    timed = Timed(folder)
    timed.recorder.point(ParameterRegistered("p"))
    for rank, tree in enumerate(spans):
        write(timed, rank, tree)
    timed.recorder.close()
    session = Session.open(folder)
    for rank in (None, *range(len(spans))):
        found = timing(session, rank)
        assert sum(one.self_ns for one in found.stages) == pytest.approx(found.total_ns, abs=1e-3)
        assert all(one.self_ns > -1e-3 for one in found.stages)
    for lane in lanes(session):
        assert all(a.end_ns <= b.start_ns for a, b in zip(lane.pieces, lane.pieces[1:], strict=False))
    session.close()


# --- memory


def test_the_peak_is_where_the_high_water_mark_came_close_to_its_end_first(timed, closed):
    timed.span(LoaderCalled("a", "small"), 0, 0, 18)
    timed.span(LoaderCalled("b", "large"), 0, 20, 39)
    timed.span(WeightsProcessed("m"), 0, 40, 80)
    for at, rss, peak in ((0, 100, 0), (19, 110, 0), (39.5, 112, 300), (60, 120, 300), (80, 118, 301)):
        timed.sample(at, rss << 20, peak << 20)
    (found,) = memory(closed())
    assert found.peak_bytes == 301 << 20
    assert found.peak.to_bytes == 300 << 20
    assert found.peak.during[0].name == "large"
    assert found.peak.resolution_ns == 20.5 * MS
    assert [climb.bytes >> 20 for climb in found.climbs] == [190, 10, 1]


def test_growth_is_shared_by_time_and_adds_up_to_what_was_gained(timed, closed):
    timed.span(LoaderCalled("a", "p"), 0, 0, 10)
    timed.span(LoaderCalled("b", "q"), 0, 10, 40)
    for at, rss in ((0, 1000), (40, 5000), (60, 4000)):
        timed.sample(at, rss)
    (found,) = memory(closed())
    assert {name: one.rss_bytes for name, one in found.parameters.items()} == pytest.approx({"p": 1000, "q": 3000})
    assert sum(one.rss_bytes for one in found.stages.values()) == pytest.approx(3000)
    assert found.stages["between stages"].rss_bytes == pytest.approx(-1000)


def test_a_peak_of_before_the_first_look_is_nobodys(timed, closed):
    timed.span(WeightsProcessed("m"), 0, 0, 10)
    timed.sample(0, 100 << 20, 900 << 20)
    timed.sample(10, 200 << 20, 900 << 20)
    (found,) = memory(closed())
    assert (found.peak_bytes >> 20, found.peak, found.climbs) == (900, None, ())


def test_a_devices_peak_is_told_apart_from_the_hosts(timed, closed):
    timed.span(LoaderCalled("a", "p"), 0, 0, 10)
    for at, held in ((0, 0), (10, 50 << 20)):
        timed.sample(at, 1 << 20, device="chip:1", device_allocated_bytes=held, device_peak_bytes=held)
    (found,) = memory(closed())
    assert (found.device, found.device_peak.to_bytes >> 20, found.device_peak.during[0].name) == ("chip:1", 50, "p")
    assert found.stages["weight.load"].device_bytes == 50 << 20


def test_a_session_without_samples_has_no_memory(loaded):
    assert memory(loaded) == ()


# --- launches


def test_launches_inside_another_are_part_of_it_and_a_methods_own_time_is_what_is_left(timed, closed):
    forward = timed.span(ForwardRan("M", "decode", 1), 0, 0, 100)
    method = timed.span(KernelLaunched("Fp8.apply", "method", "layers.2.mlp.up"), 0, 10, 60, forward)
    custom = timed.span(KernelLaunched("lib::linear", "custom", "layers.2.mlp.up"), 0, 20, 50, method)
    timed.span(KernelLaunched("_kernel", "triton", "layers.2.mlp.up", device_ns=9), 0, 30, 40, custom)
    timed.span(KernelLaunched("aten::add", "aten", "layers.2"), 0, 70, 75, forward)
    session = closed()
    assert [(one.name, one.ns / MS, one.layer, one.phase) for one in launches(session)] == [
        ("Fp8.apply", 20, "layers.2", "decode"), ("lib::linear", 30, "layers.2", "decode"),
        ("aten::add", 5, "layers.2", "decode"),
    ]  # fmt: skip
    assert [one.device_ns for one in launches(session)] == [-1, 9, -1]
    assert [one.own_ns / MS for one in passes(session)] == [45]
