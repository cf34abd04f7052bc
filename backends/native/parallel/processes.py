"""Tensor parallelism across processes: one rank each, started by torchrun, that meet through torch.distributed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from backends.native.errors import LockstepError
from backends.native.parallel.groups import Membership, joined


def world_size() -> int:
    """Number of processes that torchrun started this one with; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


@contextmanager
def joined_processes() -> Iterator[None]:
    """Make this thread the rank that torchrun gave the process, for the length of the block.

    A process that is in a group already stays in it: one made after another finds the addresses of the first.
    """
    is_ours = not dist.is_initialized()
    if is_ours:
        dist.init_process_group("gloo")
    try:
        with joined(Membership(dist.get_rank(), dist.get_world_size(), _meet)):
            yield
    finally:
        if is_ours:
            dist.destroy_process_group()


def _meet(rank: int, what: str, value: Any, combine: Callable[[Sequence[Any]], Sequence[Any]]) -> Any:
    """Every process gathers what all handed in and combines it itself, so all get the bits that one process gets."""
    size = dist.get_world_size()
    if value is None:  # nothing to exchange: each process reads the checkpoint by itself
        return combine([None] * size)[rank]
    places: list[Any] = [None] * size
    dist.all_gather_object(places, what)
    if len(set(places)) > 1:
        listed = "; ".join(f"rank {other} at {place}" for other, place in enumerate(places))
        raise LockstepError(
            f"the ranks met at different places: {listed}.", "make every rank take the same branch before a collective"
        )
    return combine(_gathered(value, size))[rank]


def _gathered(value: Tensor, size: int) -> list[Tensor]:
    """The ranks' tensors, sent as bytes: gloo does not know every dtype."""
    sent = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    received = [torch.empty_like(sent) for _ in range(size)]
    dist.all_gather(received, sent)
    return [part.view(value.dtype).reshape(value.shape).to(value.device) for part in received]
