"""Run n ranks as threads of which one runs at a time, handing a baton on at every collective."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from backends.native.errors import LockstepError
from backends.native.parallel.groups import ALONE, Membership, joined, tp_rank, tp_size

Result = TypeVar("Result")
_RETURN = "the end of its work"


class RankAbortedError(BaseException):
    """Unwinds a rank after another one failed; no `except Exception` of a model may swallow it."""


class Lockstep(Generic[Result]):
    """One run of `work` on `size` ranks.

    The baton goes 0, 1, ..., size - 1, 0, ... so a run is deterministic. Rank 0 combines what the others handed in when
    the baton is back. A rank that returns or raises keeps handing the baton on until all have ended.
    """

    def __init__(self, size: int, work: Callable[[int], Result]) -> None:
        self.size = size
        self.work = work
        self.failure: BaseException | None = None
        self.results: dict[int, Result] = {}
        self._batons = [threading.Semaphore(0) for _ in range(size)]
        self._meeting: list[str] = [""] * size
        self._values: list[Any] = [None] * size
        self._outcomes: Sequence[Any] = ()

    def run(self) -> list[Result]:
        """Each rank's result, in rank order; the first rank's exception is raised again as it was."""
        threads = [
            threading.Thread(target=self._run_rank, args=(rank,), name=f"tp_rank {rank}", daemon=True)
            for rank in range(self.size)
        ]
        for thread in threads:
            thread.start()
        self._batons[0].release()
        try:
            for thread in threads:
                thread.join()
        except BaseException as interrupt:  # Ctrl-C reaches the main thread only: the ranks end at their next meeting
            self.failure = self.failure or interrupt
            raise
        if self.failure is not None:
            raise self.failure
        return [self.results[rank] for rank in range(self.size)]

    def meet(self, rank: int, what: str, value: Any, combine: Callable[[Sequence[Any]], Sequence[Any]]) -> Any:
        """Hand in `value`, let the others reach the same point, return this rank's part of `combine(values)`."""
        self._require_no_failure()  # a `finally` of a rank being unwound may come here: nobody would answer it
        self._meeting[rank], self._values[rank] = what, value
        self._pass_baton(rank)
        if rank == 0:
            self._require_same_meeting()
            self._outcomes = combine(self._values)
        return self._outcomes[rank]

    def _run_rank(self, rank: int) -> None:
        try:
            self._await_baton(rank)
            with joined(Membership(rank, self.size, self.meet)):
                self.results[rank] = self.work(rank)
            self.meet(rank, _RETURN, None, lambda values: values)
        except RankAbortedError:
            pass
        except BaseException as failure:  # noqa: BLE001 - whatever it is belongs to the caller of run()
            self.failure = self.failure or failure
        finally:
            self._batons[(rank + 1) % self.size].release()

    def _pass_baton(self, rank: int) -> None:
        self._batons[(rank + 1) % self.size].release()
        self._await_baton(rank)

    def _await_baton(self, rank: int) -> None:
        self._batons[rank].acquire()
        self._require_no_failure()

    def _require_no_failure(self) -> None:
        if self.failure is not None:
            raise RankAbortedError

    def _require_same_meeting(self) -> None:
        if len(set(self._meeting)) > 1:
            places = "; ".join(f"rank {rank} at {what}" for rank, what in enumerate(self._meeting))
            raise LockstepError(
                f"the ranks met at different places: {places}.",
                "make every rank take the same branch before a collective",
            )


def run_ranks(size: int, work: Callable[[int], Result]) -> list[Result]:
    """Run `work(rank)` on every rank of a group of `size`; a group of one runs in the calling thread.

    A thread that is a rank of a group already runs its own part only, and the result has that one element.
    """
    if tp_size() > 1:
        if tp_size() != size:
            raise LockstepError(
                f"{size} ranks are asked for inside a group of {tp_size()}.", "ask for as many as the group has"
            )
        return [work(tp_rank())]
    if size == 1:
        with joined(ALONE):
            return [work(0)]
    return Lockstep(size, work).run()
