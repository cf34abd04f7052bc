"""The ledger's boxes, checked by doing with plain indexing what they say and comparing with what the loader did."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from inspectors.probe.dispatch import WatchedOperations
from inspectors.probe.events import WeightWritten
from inspectors.probe.loadwatch import Ledger, view_of
from inspectors.probe.names import layout_of
from inspectors.probe.splits import Cut

NEVER = -7.0


def watched(load: Callable[[nn.Parameter, Tensor], None], parameter: nn.Parameter, tensor: Tensor):
    """Run one loader under the ledger; what it wrote and where it cut."""
    base = view_of(parameter)
    writes: list[WeightWritten] = []
    cuts: list[Cut] = []
    find = lambda view: ("p", base) if view.storage == base.storage else None  # noqa: E731
    ledger = Ledger(tensor, layout_of("t", tensor), cuts.append, writes.append, find)

    def run(func, args, kwargs):
        out = func(*args, **kwargs)
        ledger.saw(func, args, kwargs, out)
        return out

    mode = WatchedOperations(run)
    mode.enter()
    try:
        load(parameter, tensor)
    finally:
        mode.leave()
    if view_of(parameter).storage != base.storage:
        ledger.rebound("p", parameter)
    return writes, cuts


def rebuilt(shape, writes: list[WeightWritten], tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The parameter as the writes say, and where they do not say from what."""
    made, unknown = torch.full(shape, NEVER), torch.zeros(shape, dtype=torch.bool)
    for write in writes:
        if len(write.start) != len(shape):
            unknown[:] = True
            continue
        where = tuple(slice(s, s + n) for s, n in zip(write.start, write.length, strict=True))
        if not write.source_start and write.source != "constant":
            unknown[where] = True
            continue
        unknown[where] = False
        if write.source == "constant":
            made[where] = 0.0
            continue
        taken = tuple(slice(s, s + n) for s, n in zip(write.source_start, write.source_length, strict=True))
        source = tensor[taken].float()
        made[where] = (
            source.t()
            if "transposed" in write.source
            else source.reshape(made[where].shape if source.numel() == made[where].numel() else source.shape)
        )
    return made, unknown


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
}

UNKNOWN: dict[str, Callable[[nn.Parameter, Tensor], object]] = {
    "index_copy_": lambda p, w: p.data.index_copy_(0, torch.tensor([5, 6, 1]), w[:3]),
    "index_put_": lambda p, w: p.data.__setitem__(torch.tensor([5, 6, 1]), w[:3]),
    "masked": lambda p, w: p.data.__setitem__(torch.arange(8) % 3 == 0, w[:3]),
    "gathered rows": lambda p, w: p.data.copy_(w[torch.tensor([7, 6, 5, 4, 3, 2, 1, 0])]),
    "in place arithmetic": lambda p, w: p.data.add_(w),
    "computed": lambda p, w: p.data.copy_(w * 2),
    "flat slice over rows": lambda p, w: p.data.view(-1)[10:22].copy_(w.view(-1)[4:16]),
    "out=": lambda p, w: torch.add(w, w, out=p.data),
}


def made_by(load: Callable[[nn.Parameter, Tensor], object]):
    tensor = torch.arange(1.0, 49.0).view(8, 6)
    parameter = nn.Parameter(torch.full((8, 6), NEVER), requires_grad=False)
    writes, _ = watched(load, parameter, tensor)
    return parameter.data, writes, *rebuilt((8, 6), writes, tensor)


@pytest.mark.parametrize("load", EXACT.values(), ids=EXACT.keys())
def test_boxes_say_exactly_what_was_written(load):
    actual, _, made, unknown = made_by(load)
    assert not unknown.any()
    assert torch.equal(made, actual)


@pytest.mark.parametrize("load", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_what_is_not_understood_is_said_and_never_dropped(load):
    actual, writes, made, unknown = made_by(load)
    changed = actual != NEVER
    assert (unknown | (made == actual))[changed].all()
    assert not (made != actual)[~unknown].any()
    assert all(write.operation for write in writes)


def test_an_operator_that_is_not_understood_is_named():
    _, writes, _, _ = made_by(UNKNOWN["index_copy_"])
    assert [(write.operation, write.source) for write in writes] == [("aten::index_copy_", "unknown")]
    _, writes, _, _ = made_by(UNKNOWN["computed"])
    assert [write.source for write in writes] == ["computed by aten::mul"]


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
    writes, _ = watched(lambda p, w: p.data[1].copy_(w[0]), parameter, second)
    assert (writes[0].source_start, writes[0].source_length) == ((0, 0), (1, 3))
    assert first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
