"""From an element to bytes and back in small recordings: exact maps, runs, nibbles, blocks, suspicions, repacks."""

import dataclasses

import pytest

from inspectors.probe.events import (
    LoaderCalled,
    MethodSelected,
    ModelLoaded,
    ParameterRegistered,
    TensorListed,
    TensorRead,
    WeightRepacked,
    WeightsMapped,
    WeightWritten,
    WriteSuspected,
)
from inspectors.probe.recorder import Recorder
from sessions.checkpoint import consumption, tensor
from sessions.faults import faults
from sessions.manifest import Manifest, Outcome
from sessions.parameters import parameter, parameters
from sessions.provenance import element
from sessions.taken import bytes_of

FILE = "model.safetensors"


def written(name, **facts):
    return WeightWritten(name, operation="aten::copy_", **facts)


class Story:
    """Writes a session of one rank: tensors, parameters, and calls with what happened inside."""

    def __init__(self, folder):
        self.folder, self.recorder = folder, Recorder(folder, "ledger")
        self.span, self.at = self.recorder.begin(WeightsMapped("Toy", 1), 0), 100

    def tensor(self, name, dtype, shape, size, read=None):
        self.recorder.point(TensorListed(name, dtype, shape, FILE, self.at, self.at + size))
        if read is not None:
            self.recorder.point(TensorRead(name, *read, size))
        self.at += size

    def parameter(self, name, shape, dtype="float32"):
        self.recorder.point(ParameterRegistered(name, "Parameter", dtype, shape, 0, "Toy.load", "toy.py:1"), 0)

    def call(self, tensor, name, *inside, shard="", expert=-1):
        body = LoaderCalled(tensor, name, shard_id=shard, expert_id=expert, loader="Toy.load", where="toy.py:1")
        span = self.recorder.begin(body, 0)
        for one in inside:
            self.recorder.point(one, 0)
        self.recorder.end(span, dataclasses.replace(body, outcome="returned"))

    def point(self, body):
        self.recorder.point(body, 0)

    def end(self, opened):
        self.recorder.end(self.span)
        self.recorder.point(ModelLoaded(1), 0)
        self.recorder.close()
        Manifest(id="t", verb="trace", level="ledger", engine="toy", tp=1, outcome=Outcome("ok", 0)).write(self.folder)
        return opened(self.folder)


@pytest.fixture
def story(tmp_path):
    return Story(tmp_path / "story")


def test_an_interleaved_write_is_followed_by_its_recorded_map(story, opened):
    story.tensor("t", "F32", (4, 6), 96)
    story.parameter("m.weight", (2, 4))
    story.call(
        "t",
        "m.weight",
        written("m.weight", start=(0, 0), length=(2, 4), elements=8, source_offset=1, source_strides=(12, 1)),
    )
    session = story.end(opened)
    source = element(session, "m.weight", (1, 2), 0).filled[0].source
    assert (source.certainty, source.index, source.begin, source.end) == ("exact", (2, 3), 100 + 15 * 4, 100 + 16 * 4)
    (part,) = bytes_of(session, FILE, 100 + 15 * 4 + 3, 100 + 18 * 4)
    assert [taken.boxes for taken in part.taken] == [(((1, 2), (1, 2)),)]
    assert consumption(session)[0].never_consumed_bytes == (24 - 8) * 4


def test_an_element_of_half_a_byte_is_a_byte_and_the_bit_it_begins_at(story, opened):
    story.tensor("t", "F4", (2, 6), 6)
    story.parameter("m.weight", (2, 6), "float4_e2m1")
    story.call(
        "t",
        "m.weight",
        written("m.weight", start=(0, 0), length=(2, 6), elements=12, source_start=(0, 0), source_length=(2, 6)),
    )
    session = story.end(opened)
    source = element(session, "m.weight", (1, 1), 0).filled[0].source
    assert (source.begin, source.end, source.bit, source.tensor.bits) == (103, 104, 4, 4)
    (part,) = bytes_of(session, FILE, 103, 104)
    assert (part.first, part.last) == (6, 8)
    assert part.taken[0].boxes == (((1, 0), (1, 2)),)


def test_an_element_of_a_parameter_of_blocks_is_a_byte(story, opened):
    story.tensor("t", "Q4_K", (2, 512), 2 * 288, read=("torch.uint8", (2, 288)))
    story.parameter("m.qweight", (2, 288), "uint8")
    box = {"start": (0, 0), "length": (2, 288), "source_start": (0, 0), "source_length": (2, 288)}
    story.call("t", "m.qweight", written("m.qweight", elements=576, **box))
    session = story.end(opened)
    source = element(session, "m.qweight", (1, 5), 0).filled[0].source
    assert (source.index, source.begin, source.end) == ((1, 5), 100 + 293, 100 + 294)
    assert source.tensor.is_packed
    assert tensor(session, "t").shape == (2, 288)


def test_a_write_that_is_no_box_is_counted_by_its_runs(story, opened):
    story.tensor("t", "F32", (5,), 20)
    story.parameter("m.weight", (3, 4))
    runs = {"runs": (1, 2, 6, 3), "elements": 5, "source_offset": 0, "source_strides": (1,)}
    story.call("t", "m.weight", written("m.weight", source="masked", **runs))
    session = story.end(opened)
    (view,) = parameters(session)
    assert (view.coverage.is_known, view.coverage.never_written) == (True, 7)
    (fault,) = faults(session, [view])
    never = {(r, c) for (r0, c0), (n, m) in fault.never for r in range(r0, r0 + n) for c in range(c0, c0 + m)}
    assert never == {divmod(n, 4) for n in range(12)} - {divmod(n, 4) for n in (1, 2, 6, 7, 8)}
    found = element(session, "m.weight", (1, 3), 0).filled[0]
    assert (found.source.index, found.source.begin) == ((3,), 112)
    assert element(session, "m.weight", (1, 1), 0).filled == ()


def test_a_suspected_write_makes_a_parameter_unknown_and_says_why(story, opened):
    story.tensor("t", "F32", (4,), 16)
    story.parameter("m.weight", (4,))
    story.parameter("n.weight", (4,))
    box = {"start": (0,), "length": (4,), "elements": 4, "source_start": (0,), "source_length": (4,)}
    story.call(
        "t",
        "m.weight",
        written("m.weight", **box),
        WriteSuspected("m.weight", "aten::odd_", "an unknown operator wrote"),
    )
    story.call("t", "n.weight", written("n.weight", **box))
    session = story.end(opened)
    first, second = parameters(session)
    assert not first.is_known
    assert "an unknown operator wrote" in first.unknown_because
    assert "aten::odd_" in first.unknown_because
    assert set(first.cells(4)) == {"?"}
    assert second.is_known
    fault, clean = faults(session, parameters(session))
    assert (fault.is_clean, clean.is_clean) == (False, True)
    assert fault.suspicions[0].operation == "aten::odd_"
    assert element(session, "m.weight", (2,), 0).view.unknown_because == first.unknown_because


def test_a_tensor_named_by_the_write_goes_before_that_of_the_call(story, opened):
    story.tensor("a", "F32", (4,), 16)
    story.tensor("b", "F32", (4,), 16)
    story.parameter("m.weight", (8,))
    half = {"length": (4,), "elements": 4, "source_start": (0,), "source_length": (4,)}
    story.call(
        "b",
        "m.weight",
        written("m.weight", start=(0,), checkpoint_name="a", **half),
        written("m.weight", start=(4,), **half),
    )
    session = story.end(opened)
    assert [element(session, "m.weight", (n,), 0).filled[0].source.name for n in (0, 3, 4)] == ["a", "a", "b"]
    assert [part.taken[0].boxes for part in bytes_of(session, FILE, 104, 120)] == [(((1,), (3,)),), (((4,), (1,)),)]
    assert [one.never_consumed_bytes for one in consumption(session)] == [0, 0]


def test_an_element_as_processed_leads_through_the_repack_to_its_bytes(story, opened):
    story.tensor("t", "F32", (2, 3), 24)
    story.parameter("m.weight", (2, 3))
    box = {"start": (0, 0), "length": (2, 3), "source_start": (0, 0), "source_length": (2, 3)}
    story.call("t", "m.weight", written("m.weight", elements=6, **box))
    story.point(
        WeightRepacked("m.weight", "float32", (3, 2), (0, 0), (3, 2), 6, "m.weight", "transposed", 0, (1, 3), "aten::t")
    )
    session = story.end(opened)
    found = element(session, "m.weight", (2, 1), 0, is_processed=True)
    assert found.is_processed
    assert found.index == (1, 2)
    assert found.filled[0].source.begin == 100 + 5 * 4
    as_loaded = element(session, "m.weight", (1, 2), 0)
    assert [boxes for _, _, boxes in as_loaded.became] == [(((2, 1), (1, 1)),)]


def test_a_computed_repack_says_from_what_and_no_bytes(story, opened):
    story.tensor("t", "F32", (2, 3), 24)
    story.parameter("m.weight", (2, 3))
    box = {"start": (0, 0), "length": (2, 3), "source_start": (0, 0), "source_length": (2, 3)}
    story.call("t", "m.weight", written("m.weight", elements=6, **box))
    body = WeightRepacked(
        "m.packed", "int32", (6,), (0,), (6,), 6, "m.weight", "computed by aten::mul", -1, (), "aten::mul"
    )
    story.point(body)
    session = story.end(opened)
    (_, made, boxes) = element(session, "m.weight", (1, 1), 0).became[0]
    assert (made.parameter, boxes) == ("m.packed", ())


def test_an_unknown_map_gives_the_bytes_of_what_was_taken(story, opened):
    story.tensor("t", "F32", (4, 4), 64)
    story.parameter("m.weight", (2, 4))
    story.call(
        "t", "m.weight", written("m.weight", start=(0, 0), length=(2, 4), elements=8, source="computed by aten::mul")
    )
    session = story.end(opened)
    source = element(session, "m.weight", (0, 0), 0).filled[0].source
    assert (source.certainty, source.index, source.begin, source.end) == ("computed", None, 100, 164)
    (part,) = bytes_of(session, FILE, 100, 104)
    assert [taken.boxes for taken in part.taken] == [None]
    assert not part.is_unused


def test_an_element_on_a_rank_that_has_no_such_parameter_is_none(story, opened):
    story.parameter("m.weight", (2,))
    session = story.end(opened)
    assert element(session, "m.weight", (0,), 3) is None
    assert element(session, "other.weight", (0,), 0) is None
    assert element(session, "m.weight", (0,), 0).filled == ()


def test_the_decision_of_the_module_goes_with_the_element(story, opened):
    story.parameter("m.weight", (2,))
    story.point(MethodSelected("m", "Linear", "Config", "PlainMethod", "c.py:1"))
    session = story.end(opened)
    assert [event.body.method for event in element(session, "m.weight", (0,), 0).decision] == ["PlainMethod"]


@pytest.mark.parametrize("rows", [1, 3])
def test_slots_of_experts_that_never_came_are_inferred_from_the_others(story, opened, rows):
    story.parameter("e.experts.w13_weight", (3, 2 * rows, 4))
    for expert, shard, at in ((0, "'w1'", 0), (0, "'w3'", rows), (1, "'w1'", 0), (2, "'w1'", 0), (2, "'w3'", rows)):
        story.tensor(f"e.experts.{expert}.{shard}", "F32", (rows, 4), rows * 16)
        box = {"start": (expert, at, 0), "length": (1, rows, 4), "source_start": (0, 0), "source_length": (rows, 4)}
        one = written("e.experts.w13_weight", elements=rows * 4, **box)
        story.call(f"e.experts.{expert}.{shard}", "e.experts.w13_weight", one, shard=shard, expert=expert)
    session = story.end(opened)
    (fault,) = faults(session, parameters(session))
    assert fault.never == (((1, rows, 0), (1, rows, 4)),)
    (empty,) = [slot for slot in fault.slots if slot.is_inferred]
    assert (empty.expert_id, empty.shard_id, empty.never) == (1, "'w3'", rows * 4)
    assert len(fault.slots) == 6


def test_one_parameter_is_read_as_it_is_among_all(loaded):
    for view in parameters(loaded)[::7]:
        alone = next(v for v in parameter(loaded, view.name) if v.rank == view.rank)
        assert (alone.shape, alone.dtype, alone.writes, alone.loader_calls) == (
            view.shape,
            view.dtype,
            view.writes,
            view.loader_calls,
        )
        assert alone.coverage == view.coverage
