"""What is told of post-processing, checked by doing with plain indexing what it says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from inspectors.probe.dispatch import WatchedOperations
from inspectors.probe.events import WeightRepacked
from inspectors.probe.repacks import Repacks


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(1.0, 49.0).view(8, 6), requires_grad=False)
        self.scale = nn.Parameter(torch.arange(101.0, 109.0).view(8, 1), requires_grad=False)


def processed(layer: nn.Module, process: Callable[[nn.Module], object], repacks: Repacks | None = None):
    repacks = repacks or Repacks()
    processing = repacks.begin("m", layer)

    def run(func, args, kwargs):
        out = func(*args, **kwargs)
        if processing.watch.concerns(func):
            processing.watch.saw(func, args, kwargs, out)
        return out

    mode = WatchedOperations(run)
    mode.enter()
    try:
        process(layer)
    finally:
        mode.leave()
    return list(repacks.ended(processing))


def new(x: Tensor) -> nn.Parameter:
    return nn.Parameter(x, requires_grad=False)


EXACT: dict[str, Callable[[nn.Module], object]] = {
    "transposed view": lambda m: setattr(m, "weight", new(m.weight.t())),
    "transposed copy": lambda m: setattr(m, "weight", new(m.weight.t().contiguous())),
    "data": lambda m: setattr(m.weight, "data", m.weight.data.t().contiguous()),
    "padded": lambda m: setattr(m, "weight", new(nn.functional.pad(m.weight, (0, 2, 0, 1)))),
    "interleaved": lambda m: setattr(m, "weight", new(torch.stack([m.weight[:4], m.weight[4:]], 1).flatten(0, 1))),
    "permuted": lambda m: setattr(m, "weight", new(m.weight[torch.tensor([3, 1, 0, 2, 7, 6, 5, 4])])),
    "blocked": lambda m: setattr(m, "weight", new(m.weight.view(4, 2, 3, 2).permute(0, 2, 1, 3).contiguous())),
    "cast": lambda m: setattr(m, "weight", new(m.weight.to(torch.float16))),
    "swapped halves in place": lambda m: m.weight.data.copy_(torch.cat([m.weight.data[4:], m.weight.data[:4]])),
    "one row in place": lambda m: m.weight.data[2].copy_(m.weight.data[3]),
    "joined": lambda m: m.register_parameter("both", new(torch.cat([m.weight, m.scale], 1))),
    "a plain attribute": lambda m: setattr(m, "flat", m.weight.reshape(-1)[6:18].clone()),
}


@pytest.mark.parametrize("process", EXACT.values(), ids=EXACT.keys())
def test_a_repack_says_for_every_element_where_it_was(process):
    layer = Layer()
    before = {f"m.{name}": tensor.detach().clone().reshape(-1) for name, tensor in layer.named_parameters()}
    events = processed(layer, process)
    assert events
    for name in {event.parameter for event in events}:
        actual = getattr(layer, name.removeprefix("m.")).detach()
        was = before.get(name)
        is_same = was is not None and was.shape == actual.reshape(-1).shape
        made = was.view(actual.shape).clone() if is_same else torch.full(actual.shape, -1.0)
        for event in (event for event in events if event.parameter == name):
            assert (event.shape, event.dtype) == (tuple(actual.shape), str(actual.dtype).removeprefix("torch."))
            where = tuple(slice(s, s + n) for s, n in zip(event.start, event.length, strict=True))
            if event.source == "constant":
                made[where] = 0.0
                continue
            places = torch.full(event.length, event.source_offset)
            for d, (n, stride) in enumerate(zip(event.length, event.source_strides, strict=True)):
                places += (torch.arange(n) * stride).view([-1 if d == k else 1 for k in range(len(event.length))])
            made[where] = before[event.from_parameter][places]
        assert torch.equal(made, actual.float())


def test_what_did_not_change_is_not_told():
    assert processed(Layer(), lambda m: (m.weight.t(), m.weight * 2)) == []
    changed = processed(Layer(), EXACT["one row in place"])
    assert [(e.start, e.length, e.from_parameter, e.source_offset) for e in changed] == [
        ((2, 0), (1, 6), "m.weight", 18)
    ]


def test_a_requantized_weight_is_told_as_computed_from_weight_and_scale():
    def requantize(m: nn.Module) -> None:
        m.weight = new((m.weight * m.scale / 2).to(torch.float16))

    (event,) = processed(Layer(), requantize)
    assert event == WeightRepacked(
        "m.weight", "float16", (8, 6), (0, 0), (8, 6), 48, "m.weight, m.scale",
        "computed by aten::mul, aten::div, cast float32 to float16", operation="aten::_to_copy",
    )  # fmt: skip


def test_what_numpy_made_is_unknown_from_here_and_what_is_gone_is_told():
    def process(m: nn.Module) -> None:
        m.weight = new(torch.from_numpy(m.weight.numpy()[::-1].copy()))
        del m.scale

    events = processed(Layer(), process)
    assert [(e.parameter, e.source, e.from_parameter, e.length) for e in events] == [
        ("m.weight", "unknown", "", (8, 6)), ("m.scale", "removed", "", ()),
    ]  # fmt: skip


def test_a_tensor_that_a_second_layer_takes_over_is_followed_to_the_first():
    first, second, repacks = Layer(), Layer(), Repacks()
    processed(first, EXACT["transposed copy"], repacks)
    (event,) = processed(second, lambda m: setattr(m, "weight", first.weight), repacks)
    assert (event.parameter, event.from_parameter, event.source_strides) == ("m.weight", "m.weight", (1, 6))
