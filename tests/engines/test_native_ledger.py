"""The ledger's boxes, checked by doing with plain indexing what they say and comparing with what the loader did."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from inspectors.probe.fingerprints import Trust
from inspectors.probe.lineage import Memory

LEDGERS = importlib.util.spec_from_file_location("ledgers", Path(__file__).with_name("ledgers.py"))
ledgers = importlib.util.module_from_spec(LEDGERS)
LEDGERS.loader.exec_module(ledgers)
NEVER, watched, once_more = ledgers.NEVER, ledgers.watched, ledgers.once_more


def staged(p: nn.Parameter, w: Tensor) -> None:
    buffer = torch.zeros(8, 6)
    buffer[:4].copy_(w[4:])
    buffer[4:].copy_(w[:4])
    p.data.copy_(buffer)


EXACT: dict[str, Callable[[nn.Parameter, Tensor], object]] = {
    "narrow": lambda p, w: p.data.narrow(0, 2, 3).copy_(w.narrow(0, 1, 3)),
    "column slice": lambda p, w: p.data[:, :3].copy_(w[:, 3:]),
    "setitem": lambda p, w: p.data.__setitem__(slice(0, 4), w[4:]),
    "interleaved rows": lambda p, w: (p.data[::2].copy_(w[:4]), p.data[1::2].copy_(w[4:])),
    "cast and copy": lambda p, w: p.data.copy_(w.to(torch.float64)),
    "contiguous slice": lambda p, w: p.data[:, :3].copy_(w[:, 3:].contiguous()),
    "slice of a clone": lambda p, w: p.data[:2].copy_(w.clone()[3:5]),
    "cat": lambda p, w: p.data.copy_(torch.cat([w[4:], w[:4]])),
    "cat of columns": lambda p, w: p.data.copy_(torch.cat([w[:, 3:], w[:, :3]], dim=1)),
    "part of a cat": lambda p, w: p.data[:4].copy_(torch.cat([w[6:], w[:6]])[1:5]),
    "filled, then written": lambda p, w: (p.data.zero_(), p.data[:4].copy_(w[:4])),
    "staged": lambda p, w: p.data.copy_(torch.empty(8, 6).copy_(w)),
    "staged in parts": staged,
    "chunks": lambda p, w: [p.data.chunk(2)[i].copy_(w.chunk(2)[1 - i]) for i in range(2)],
    "as bytes": lambda p, w: p.data[2:4].view(torch.int32).copy_(w[2:4].view(torch.int32)),
    "foreach": lambda p, w: torch._foreach_copy_([p.data[:2], p.data[2:]], [w[6:], w[:6]]),
    "broadcast of one element": lambda p, w: p.data.copy_(w[3, 2]),
    "broadcast of a row": lambda p, w: p.data.copy_(w[3]),
    "rebound": lambda p, w: setattr(p, "data", w[:, :].clone()),
    "square transposed": lambda p, w: p.data[:4, :4].copy_(w[:4, :4].t()),
    "copy of a transposed copy": lambda p, w: p.data[:4, :4].copy_(w[:4, :4].t().contiguous()),
    "nothing": lambda p, w: p.data[8:].zero_(),
    "index_copy_": lambda p, w: p.data.index_copy_(0, torch.tensor([5, 6, 1]), w[:3]),
    "index_put_": lambda p, w: p.data.__setitem__(torch.tensor([5, 6, 1]), w[:3]),
    "index_put_ of columns": lambda p, w: p.data.__setitem__((slice(None), torch.tensor([5, 0])), w[:, :2]),
    "index_put_ of elements": lambda p, w: p.data.__setitem__((torch.tensor([5, 0]), torch.tensor([1, 2])), w[0, :2]),
    "masked": lambda p, w: p.data.__setitem__(torch.arange(8) % 3 == 0, w[:3]),
    "masked elements": lambda p, w: p.data.masked_scatter_(w.long() % 5 == 0, w),
    "masked constant": lambda p, w: (p.data.copy_(w), p.data.masked_fill_(w > 9, 0.0)),
    "scattered": lambda p, w: p.data.scatter_(0, torch.tensor([[3, 1, 7, 0, 2, 6]]), w),
    "gathered rows": lambda p, w: p.data.copy_(w[torch.tensor([7, 6, 5, 4, 3, 2, 1, 0])]),
    "a column of a mask": lambda p, w: p.data.__setitem__((slice(None), torch.arange(6) % 2 == 0), w[:, :3]),
    "gathered elements": lambda p, w: p.data[:1].copy_(w.gather(0, torch.tensor([[3, 1, 7, 0, 2, 6]]))),
    "flat slice over rows": lambda p, w: p.data.view(-1)[10:22].copy_(w.view(-1)[4:16]),
    "flat slice of columns": lambda p, w: p.data.view(-1)[3:27].copy_(w[:, 1:4].reshape(-1)),
    "transposed and flattened": lambda p, w: p.data.view(6, 8).copy_(w.t()),
    "t().contiguous().view()": lambda p, w: p.data.copy_(w.t().contiguous().view(8, 6)),
    "flipped": lambda p, w: p.data.copy_(w.flip(0, 1)),
    "rolled": lambda p, w: p.data.copy_(w.roll(3, 0)),
    "repeated": lambda p, w: p.data.copy_(w[:2, :3].repeat(4, 2)),
    "repeat_interleave": lambda p, w: p.data.copy_(w[:4].repeat_interleave(2, 0)),
    "padded": lambda p, w: p.data.copy_(nn.functional.pad(w[:6, :5], (1, 0, 0, 2))),
    "stacked and interleaved": lambda p, w: p.data.copy_(torch.stack([w[:4], w[4:]], dim=1).reshape(8, 6)),
    "interleaved columns": lambda p, w: (p.data[:, ::2].copy_(w[:, :3]), p.data[:, 1::2].copy_(w[:, 3:])),
    "out= of cat": lambda p, w: torch.cat([w[4:], w[:4]], out=p.data),
    "set_": lambda p, w: p.data.set_(w.clone()),
    "bytes through a buffer": lambda p, w: p.data.copy_(
        torch.cat([w.view(torch.uint8)[4:], w.view(torch.uint8)[:4]]).view(torch.float32)
    ),
    "read back": lambda p, w: (p.data.copy_(w), p.data.copy_(p.data.flip(0).clone())),
    "read back after two writes": lambda p, w: (
        p.data.copy_(w),
        p.data[:4].copy_(w.flip(0)[:4]),
        p.data.copy_(p.data.clone()),
    ),
    "bytes off their elements": lambda p, w: p.data.view(-1)[:47].copy_(
        w.view(torch.uint8).view(-1)[2:-2].clone().view(torch.float32)
    ),
    "swapped": lambda p, w: torch.utils.swap_tensors(p, nn.Parameter(w.clone(), requires_grad=False)),
}

UNKNOWN: dict[str, Callable[[nn.Parameter, Tensor], object]] = {
    "in place arithmetic": lambda p, w: p.data.add_(w),
    "computed": lambda p, w: p.data.copy_(w * 2),
    "out=": lambda p, w: torch.add(w, w, out=p.data),
    "accumulated": lambda p, w: p.data.index_put_((torch.tensor([1, 1]),), w[:2], accumulate=True),
    "rows of itself": lambda p, w: (
        p.data.copy_(w),
        p.data.view(6, 8).t().index_copy_(0, torch.tensor([2, 0]), p.data.view(6, 8).t()[:2]),
    ),
    "the same row twice": lambda p, w: p.data.index_copy_(0, torch.tensor([1, 1]), w[:2]),
    "the tensor itself changed": lambda p, w: p.data.copy_(w.add_(1)),
    "half an element": lambda p, w: p.data.view(torch.int16)[:, 1:].copy_(w.view(torch.int16)[:, :-1]),
    "sorted": lambda p, w: p.data.copy_(w.sort(descending=True)[0]),
}


def made_by(load: Callable[[nn.Parameter, Tensor], object]):
    tensor = torch.arange(1.0, 49.0).view(8, 6)
    parameter = nn.Parameter(torch.full((8, 6), NEVER), requires_grad=False)
    original = tensor.clone()
    events, _ = watched(load, parameter, tensor)
    return parameter.data, events, *ledgers.rebuilt(parameter.data, events, original)


@pytest.mark.parametrize("load", EXACT.values(), ids=EXACT.keys())
def test_boxes_say_exactly_what_was_written(load):
    actual, events, made, unknown = made_by(load)
    assert not unknown.any(), events
    assert ledgers.same_bits(made, actual).all(), events


@pytest.mark.parametrize("load", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_what_is_not_understood_is_said_and_never_dropped(load):
    actual, writes, made, unknown = made_by(load)
    changed = actual != NEVER
    assert unknown.any()
    assert (unknown | (made == actual))[changed].all()
    assert not (made != actual)[~unknown].any()
    assert all(write.operation for write in writes)


def test_how_elements_were_computed_is_told():
    _, writes, _, _ = made_by(UNKNOWN["computed"])
    assert [(write.source, write.length) for write in writes] == [("computed by aten::mul", (8, 6))]
    _, writes, _, _ = made_by(lambda p, w: p.data[:4].copy_((w[:4] * 2).to(torch.float16) + 1))
    assert [write.source for write in writes] == [
        "computed by aten::mul, aten::add, cast float16 to float32"
    ]  # fmt: skip


def test_a_cast_and_a_broadcast_are_marked():
    tensor = torch.ones(1, dtype=torch.bfloat16)
    writes, _ = watched(lambda p, w: p.data.copy_(w), nn.Parameter(torch.zeros(3), requires_grad=False), tensor)
    assert [write.source for write in writes] == ["cast bfloat16 to float32, broadcast"]


def test_only_real_cuts_of_the_loaded_tensor_are_splits():
    parameter, tensor = nn.Parameter(torch.zeros(8, 6), requires_grad=False), torch.rand(8, 6)

    def load(p: nn.Parameter, w: Tensor) -> None:
        whole = w.narrow(0, 0, 8)
        first, _ = whole.split([2, 6], dim=0)
        p.data.narrow(0, 2, 2).copy_(first)
        p.data[0].copy_(w[-1])
        p.data[1].copy_(w.clone()[:, 1:].narrow(1, 0, 5).new_zeros(6))

    _, cuts = watched(load, parameter, tensor)
    assert [(c.operation, c.dim, c.start, c.length, c.size) for c in cuts] == [
        ("split", 0, 0, 2, 8), ("split", 0, 2, 6, 8), ("select", 0, 7, 1, 8), ("slice", 1, 1, 5, 6),
    ]  # fmt: skip


def test_two_tensors_in_one_mapped_file_are_told_apart():
    mapped = torch.arange(12.0)
    first, second = mapped[:6].view(2, 3), mapped[6:].view(2, 3)
    parameter = nn.Parameter(torch.zeros(2, 3), requires_grad=False)
    writes, _ = watched(lambda p, w, _: p.data[1].copy_(w[0]), parameter, second, first)
    assert (writes[0].source_start, writes[0].source_length, writes[0].checkpoint_name) == ((0, 0), (1, 3), "")
    writes, _ = watched(lambda p, _, w: p.data[1].copy_(w[0]), parameter, second, first)
    assert (writes[0].source_start, writes[0].source_offset, writes[0].checkpoint_name) == ((0, 0), 0, "t1")


def parameter_of(*sizes: int) -> nn.Parameter:
    return nn.Parameter(torch.full(sizes, NEVER), requires_grad=False)


def rows(*numbers: int) -> list[Tensor]:
    """Tensors of 2 x 3 that all hold different numbers."""
    return [torch.arange(6.0).view(2, 3) + 10 * number for number in numbers]


def test_a_staging_buffer_that_lives_over_several_calls_keeps_what_it_was_given():
    parameter, tensors, staging = parameter_of(3, 2, 3), rows(1, 2, 3), torch.empty(3, 2, 3)

    def keep(number: int) -> Callable[..., None]:
        def load(p: nn.Parameter, *given: Tensor) -> None:
            staging[number].copy_(given[number])
            if number == 2:
                p.data.copy_(staging)

        return load

    events = ledgers.recorded([keep(0), keep(1), keep(2)], parameter, *tensors)
    assert sorted((w.checkpoint_name, w.start, w.source_offset) for w in events) == [
        ("", (0, 0, 0), 0), ("t1", (1, 0, 0), 0), ("t2", (2, 0, 0), 0),
    ]  # fmt: skip


def test_a_closure_that_stacks_experts_of_earlier_calls_names_each_tensor():
    parameter, tensors, kept = parameter_of(3, 2, 3), rows(1, 2, 3), []

    def keep(p: nn.Parameter, *given: Tensor) -> None:
        kept.append(given[len(kept)].t().contiguous())
        if len(kept) == 3:
            p.data.copy_(torch.stack(kept).transpose(1, 2))

    events = ledgers.recorded([keep, keep, keep], parameter, *tensors)
    made, unknown = ledgers.rebuilt(parameter.data, events, *tensors)
    assert not unknown.any()
    assert torch.equal(made, parameter.data)
    assert {w.checkpoint_name for w in events} == {"", "t1", "t2"}


def test_memory_that_is_used_again_holds_nothing_of_what_it_held():
    parameter, tensor, addresses = parameter_of(100, 250), torch.rand(100, 250), []
    memory, events = Memory(), []
    memory.place(id(parameter), "p", parameter)
    memory.read("t0", tensor)

    def fill(p: nn.Parameter, w: Tensor) -> None:
        addresses.append(torch.empty(100, 250).copy_(w).data_ptr())

    again = None
    while again is None:  # until the allocator gives the same memory again
        once_more(memory, fill, parameter, (tensor,), events)
        made = [torch.empty(100, 250) for _ in range(8)]
        again = next((one for one in made if one.data_ptr() == addresses[-1]), None)
    once_more(memory, lambda p, _: p.data.copy_(again), parameter, (tensor,), events)
    assert [(w.source, w.source_offset) for w in events] == [("unknown", -1)]


@pytest.mark.parametrize("count", [700, 20_000])
def test_more_places_than_boxes_are_worth_are_told_as_runs(count):
    parameter, tensor = parameter_of(3 * count, 2), torch.rand(count, 2)
    places = torch.randperm(3 * count, generator=torch.Generator().manual_seed(0))[:count]
    (write,), _ = watched(lambda p, w: p.data.index_copy_(0, places, w), parameter, tensor)
    assert (write.start, write.source, write.elements) == ((), "unknown", 2 * count)
    told = [range(a, a + n) for a, n in zip(write.runs[::2], write.runs[1::2], strict=True)]
    is_told = torch.zeros(6 * count, dtype=torch.bool)
    is_told[[place for run in told for place in run]] = True
    assert torch.equal(is_told.view(-1, 2), parameter.data != NEVER) or (count > 4096 and not told)


def test_an_operator_that_the_ledger_does_not_know_is_told_on_the_parameter_that_it_touched():
    library = torch.library.Library("ledger_test", "DEF")
    library.define("spoil(Tensor(a!) x, Tensor w) -> ()")
    library.impl("spoil", lambda x, w: x[:1].copy_(w[:1]).numel() and None, "CPU")
    parameter, (tensor,) = parameter_of(2, 3), rows(1)
    events, _ = watched(lambda p, w: torch.ops.ledger_test.spoil(p.data, w), parameter, tensor)
    assert [(type(e).__name__, e.operation) for e in events] == [
        ("WeightWritten", "ledger_test::spoil"), ("WriteSuspected", "ledger_test::spoil"),
    ]  # fmt: skip
    assert events[0].source == "unknown"
    library._destroy()


def test_a_parameter_that_is_swapped_is_found_in_its_new_memory():
    parameter, (tensor,) = parameter_of(2, 3), rows(1)

    def load(p: nn.Parameter, w: Tensor) -> None:
        torch.utils.swap_tensors(p, parameter_of(2, 3))
        p.data[1:].copy_(w[:1])

    events, _ = watched(load, parameter, tensor)
    (write,) = [e for e in events if e.source_offset >= 0]
    assert (write.start, write.length, write.source_offset) == ((1, 0), (1, 3), 0)


def test_a_parameter_that_is_materialized_inside_the_call_is_followed_from_then_on():
    late = nn.parameter.UninitializedParameter(requires_grad=False)
    (tensor,) = rows(1)

    def load(p: nn.Parameter, w: Tensor) -> None:
        p.materialize(w.shape)
        p.data.copy_(w)

    events, _ = watched(load, late, tensor)
    assert [(w.start, w.length, w.source, w.source_offset) for w in events] == [((0, 0), (2, 3), "", 0)]


def test_a_parameter_that_is_given_empty_memory_after_a_write_is_suspected():
    def load(p: nn.Parameter, w: Tensor) -> None:
        p.data.copy_(w)
        p.data = torch.empty(2, 3)

    events, _ = watched(load, parameter_of(2, 3), *rows(1))
    assert [(type(e).__name__, e.operation) for e in events] == [
        ("WeightWritten", "aten::copy_"), ("WriteSuspected", "data ="),
    ]  # fmt: skip


def test_an_operator_that_raises_half_way_makes_its_parameter_suspect():
    def load(p: nn.Parameter, w: Tensor) -> None:
        with pytest.raises(RuntimeError):
            torch._foreach_copy_([p.data[:1], p.data[1:]], [w[:1], w[:, :2]])

    events, _ = watched(load, parameter_of(2, 3), *rows(1))
    assert [(type(e).__name__, e.parameter, e.operation) for e in events] == [
        ("WriteSuspected", "p", "aten::_foreach_copy_")
    ]  # fmt: skip


def guarded(loaders: list, parameter: nn.Parameter, tensor: Tensor) -> list:
    return ledgers.recorded(loaders, parameter, tensor, trust=Trust())


def through_numpy(p: nn.Parameter, w: Tensor) -> None:
    p.data.numpy()[1] = w[0].numpy()


@pytest.mark.parametrize("rows_of_parameter", [2, 40_000])
def test_a_write_through_numpy_makes_the_parameter_suspect(rows_of_parameter):
    def load(p: nn.Parameter, w: Tensor) -> None:
        p.data.numpy()[: rows_of_parameter // 2] = 0.5

    events = guarded([load], parameter_of(rows_of_parameter, 3), *rows(1))
    assert [(type(e).__name__, e.parameter) for e in events] == [("WriteSuspected", "p")]
    assert "no operator wrote" in events[0].reason


def test_a_loader_that_writes_nothing_is_not_suspected():
    assert guarded([lambda p, w: None, lambda p, w: w + 1], parameter_of(2, 3), *rows(1)) == []


def test_a_trusted_loader_loses_trust_by_a_call_without_a_write_and_is_caught_by_the_next():
    parameter = parameter_of(2, 3)

    def copy(p: nn.Parameter, w: Tensor) -> None:
        p.data.copy_(w)

    def other(p: nn.Parameter, w: Tensor) -> None:
        p.data.numpy()[0] = 0.25

    first = guarded([copy, through_numpy], parameter, *rows(1))
    assert [type(e).__name__ for e in first] == ["WeightWritten"]
    events = guarded([copy, through_numpy, other], parameter, *rows(1))
    assert [(type(e).__name__, e.reason[:10]) for e in events[1:]] == [
        ("WriteSuspected", "its memory"), ("WriteSuspected", "an earlier"),
    ]  # fmt: skip
