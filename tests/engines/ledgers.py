"""Runs small loaders under the ledger, and does with plain indexing what its events say was done."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from inspectors.probe.dispatch import WatchedOperations
from inspectors.probe.events import WeightWritten
from inspectors.probe.fingerprints import Trust
from inspectors.probe.lineage import Memory
from inspectors.probe.loadwatch import Ledger
from inspectors.probe.names import layout_of
from inspectors.probe.splits import Cut
from inspectors.probe.views import identity_of

NEVER = -7.0


def watched(load: Callable[[nn.Parameter, Tensor], object], parameter: nn.Parameter, *tensors: Tensor):
    """Run one loader under the ledger, given the tensors "t0", "t1"; what it wrote and where it cut."""
    memory, events, cuts = Memory(), [], []
    memory.place(id(parameter), "p", parameter)
    for number, tensor in enumerate(tensors):
        memory.read(f"t{number}", tensor)
    once_more(memory, load, parameter, tensors, events, cuts)
    return events, cuts


def recorded(loaders: list, parameter: nn.Parameter, *tensors: Tensor, trust: Trust | None = None) -> list:
    """The events of several loader calls of one load."""
    memory, events = Memory(), []
    memory.place(id(parameter), "p", parameter)
    for number, tensor in enumerate(tensors):
        memory.read(f"t{number}", tensor)
    for load in loaders:
        once_more(memory, load, parameter, tensors, events, trust=trust)
    return events


def once_more(
    memory: Memory,
    load: Callable[..., object],
    parameter: nn.Parameter,
    tensors: tuple[Tensor, ...],
    events: list,
    cuts: list | None = None,
    trust: Trust | None = None,
) -> None:
    """One more loader call of the same load."""
    home = identity_of(parameter)
    found: list[Cut] = [] if cuts is None else cuts

    def look_again() -> None:
        nonlocal home
        if identity_of(parameter) != home:
            home = identity_of(parameter)
            memory.place(id(parameter), "p", parameter)
            ledger.rebound("p", parameter)

    noted = layout_of("t0", tensors[0])
    ledger = Ledger(tensors[0], noted, found.append, events.append, memory, look_again, parameter)

    if trust is not None:
        ledger.guard(trust, "the loader", "p")

    def run(func, args, kwargs):
        try:
            out = func(*args, **kwargs)
        except RuntimeError:
            ledger.raised(func, args, kwargs)
            raise
        if ledger.concerns(func):
            ledger.saw(func, args, kwargs, out)
        return out

    mode = WatchedOperations(run)
    mode.enter()
    try:
        load(parameter, *tensors)
    finally:
        mode.leave()
    look_again()
    ledger.ended()


def rebuilt(actual: Tensor, events: list, *tensors: Tensor) -> tuple[Tensor, Tensor]:
    """A parameter like `actual` as the maps of the writes say, and where they do not say from what."""
    shape, dtype = actual.shape, actual.dtype
    made, unknown = torch.full(shape, NEVER, dtype=dtype), torch.zeros(shape, dtype=torch.bool)
    for write in events:
        if not isinstance(write, WeightWritten):
            unknown[:] = True
        elif len(write.start) != len(shape):
            if not write.runs:
                unknown[:] = True
            for first, count in zip(write.runs[::2], write.runs[1::2], strict=True):
                unknown.view(-1)[first : first + count] = True
        else:
            where = tuple(slice(s, s + n) for s, n in zip(write.start, write.length, strict=True))
            notes = write.source.split(", ")
            is_constant = write.source_offset < 0 and notes[0] == "constant"
            unknown[where] = (write.source_offset < 0 and not is_constant) or {"bytes"} < {n[:5] for n in notes} & {
                "bytes", "cast "
            }  # fmt: skip
            values = 0.0 if write.source_offset < 0 else taken(write, notes, dtype, tensors)
            made[where] = values
    return made, unknown


def taken(write: WeightWritten, notes: list[str], dtype: torch.dtype, tensors: tuple[Tensor, ...]) -> Tensor:
    """The elements of the tensor that a write names, cast as it says."""
    flat = tensors[int((write.checkpoint_name or "t0")[1:])].contiguous().reshape(-1)
    places = torch.full(write.length, write.source_offset)
    for d, (n, stride) in enumerate(zip(write.length, write.source_strides, strict=True)):
        places += (torch.arange(n) * stride).view([-1 if d == k else 1 for k in range(len(write.length))])
    if "bytes" in notes:
        if any(note.startswith("cast ") for note in notes):
            return torch.zeros(write.length, dtype=dtype)
        run = torch.arange(dtype.itemsize)
        return flat.view(torch.uint8)[places.unsqueeze(-1) + run].view(dtype).squeeze(-1)
    if write.source_start:
        assert math.prod(write.source_length) <= math.prod(write.length)
        box = tuple(slice(s, s + n) for s, n in zip(write.source_start, write.source_length, strict=True))
        numbers = torch.arange(flat.numel()).view(tensors[int((write.checkpoint_name or "t0")[1:])].shape)[box]
        assert set(numbers.reshape(-1).tolist()) == set(places.reshape(-1).tolist())
    found = flat[places]
    for note in notes:
        if note.startswith("cast "):
            _, before, _, after = note.split()
            found = found.view(getattr(torch, before)).to(getattr(torch, after))
    return found.view(dtype)


def same_bits(one: Tensor, two: Tensor) -> Tensor:
    """Where two tensors of one dtype have the same bytes."""
    a, b = (t.contiguous().view(torch.uint8).view(*t.shape, t.element_size()) for t in (one, two))
    return (a == b).all(dim=-1)
