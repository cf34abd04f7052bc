"""The tensor-parallel group of the calling thread and its collectives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from backends.native.errors import ShapeError

Item = TypeVar("Item")


class Meet(Protocol):
    """All ranks hand in a value under the same name; `combine` runs once and returns one result per rank."""

    def __call__(self, rank: int, what: str, value: Any, combine: Callable[[Sequence[Any]], Sequence[Any]]) -> Any:
        """Meet the other ranks as `rank`; `what` must be the same on all."""


@dataclass(frozen=True)
class Membership:
    """One rank's place in its group."""

    rank: int
    size: int
    meet: Meet


def _meet_alone(rank: int, what: str, value: Any, combine: Callable[[Sequence[Any]], Sequence[Any]]) -> Any:
    del rank, what
    return combine([value])[0]


ALONE = Membership(rank=0, size=1, meet=_meet_alone)
_thread = threading.local()
_NO_MORE = object()


def _membership() -> Membership:
    member: Membership = getattr(_thread, "membership", ALONE)
    return member


@contextmanager
def joined(membership: Membership) -> Iterator[None]:
    """Make the calling thread that rank of that group for the length of the block."""
    before = _membership()
    _thread.membership = membership
    try:
        yield
    finally:
        _thread.membership = before


def tp_rank() -> int:
    """Rank of the calling thread; 0 outside a group."""
    return _membership().rank


def tp_size() -> int:
    """Number of ranks in the calling thread's group; 1 outside a group."""
    return _membership().size


def _meet(what: str, value: Any, combine: Callable[[Sequence[Any]], Sequence[Any]]) -> Any:
    member = _membership()
    return member.meet(member.rank, what, value, combine)


def _one_copy_each(result: Tensor, size: int) -> list[Tensor]:
    return [result, *(result.clone() for _ in range(size - 1))]


def all_reduce(x: Tensor) -> Tensor:
    """Sum of `x` over the ranks, added in rank order; same shape and dtype as `x`."""
    if tp_size() == 1:
        return x
    what = f"all_reduce of {tuple(x.shape)}"
    result: Tensor = _meet(what, x, lambda xs: _one_copy_each(torch.stack(list(xs)).sum(0), len(xs)))
    return result


def all_gather(x: Tensor, dim: int = -1) -> Tensor:
    """The ranks' tensors side by side along `dim`, in rank order."""
    if tp_size() == 1:
        return x
    what = f"all_gather of {tuple(x.shape)} along {dim}"
    result: Tensor = _meet(what, x, lambda xs: _one_copy_each(torch.cat(list(xs), dim), len(xs)))
    return result


def shared(items: Iterator[Item]) -> Iterator[Item]:
    """Give every rank the same object from `items` before the next one is read; rank 0 does the reading."""

    def read(asks: Sequence[None]) -> list[Any]:
        return [next(items, _NO_MORE)] * len(asks)

    while (item := _meet("the next item of a shared iterator", None, read)) is not _NO_MORE:
        yield item


def divide(total: int, count: int, what: str) -> int:
    """`total / count`, exact; raises ShapeError naming `what` when a remainder is left."""
    if total % count:
        raise ShapeError(
            f"{what} = {total} is not divisible by tensor parallel size {count}.", "choose a tp_size that divides it"
        )
    return total // count
