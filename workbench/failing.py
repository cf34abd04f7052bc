"""The call at which a load failed, in a few lines: what a person wants to read before opening anything."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inspectors.probe.events import LoaderCalled, StageFailed
from sessions.bundle.layout import STACKS
from sessions.event import Event
from sessions.manifest import Outcome
from sessions.session import Session

_OF_A_LIBRARY = re.compile(r"/torch/|/numpy/|/safetensors/|/gguf/|/python3\.\d+/(?!(site|dist)-packages/)|^<frozen ")


_MAX_STACKS_BYTES = 1 << 20


@dataclass(frozen=True)
class FailingCall:
    """`error` is the exception in one line; `facts` are (label, text): parameter, tensor, call, loader, places.

    `what` is "failed", or "never ended" for the call in which a host was given up or killed.
    """

    stage: str
    error: str
    facts: tuple[tuple[str, str], ...]
    what: str = "failed"

    @property
    def failed(self) -> str:
        """Stage and exception."""
        return f"{self.stage} {self.what}: {self.error}"

    @property
    def lines(self) -> list[str]:
        """As text, one line each."""
        return [self.failed, *(f"{label:<11}{text}" for label, text in self.facts)]


def failing_call(session: Session) -> FailingCall | None:
    """The failure that the others followed from: of the last one in each process the earliest; None without any.

    A process may go on after an exception that passed a tracepoint, and ranks that wait for a failed one fail later.
    Without a failure it is the first loader call that a host was in when it was given up or killed.
    """
    return session.kept("failing call", lambda: _failing_call(session))


def _failing_call(session: Session) -> FailingCall | None:
    last_in: dict[int, Event] = {}
    for event in session.of_kinds(StageFailed.kind):
        last_in[event.stream] = event
    if not last_in:
        return _never_ended(session)
    event = min(last_in.values(), key=lambda one: one.position)
    body = event.body
    if not isinstance(body, StageFailed):
        raise TypeError(f"{event.ref} is a {event.kind}, expected a failure")
    called = loader_call(session, event)
    facts = _of_call(called, event.rank) if called is not None else _of_module(body, event.rank)
    error = f"{body.error}: {' '.join(body.message.split())}"
    place, _, function = raised_at(body).partition(" ")
    is_loader = called is not None and function.rpartition(".")[2] == called.loader.rpartition(".")[2]
    place += f" in {function}" if function and not is_loader else ""
    return FailingCall(body.failed_stage, error, (*facts, *([("raised at", place)] if place else [])))


def _never_ended(session: Session) -> FailingCall | None:
    outcome = session.manifest.outcome
    if outcome is None or outcome.state not in {"failed", "killed"}:
        return None
    called = next((one for one in session.of_kinds(LoaderCalled.kind) if one.is_open), None)
    if called is None or not isinstance(called.body, LoaderCalled):
        return None
    place = waits_at(session.folder, called.body.where)
    facts = (*_of_call(called.body, called.rank), *([("waits at", place)] if place else []))
    return FailingCall(called.stage, how_it_ended(outcome), facts, "never ended")


def how_it_ended(outcome: Outcome) -> str:
    """`the host did not end within 20 s`, `the host was ended by SIGKILL`, `the host failed with exit code 1`."""
    late = outcome.extra.get("timed_out_after_s")
    if isinstance(late, (int, float)):
        return f"the host did not end within {late:g} s"
    if outcome.signal:
        return f"the host was ended by {outcome.signal}"
    return f"the host failed with exit code {outcome.exit_code}"


def waits_at(folder: Path, loader: str) -> str:
    """Where the thread was, when the host was given up, that ran the loader defined at `loader`; "" if nobody says."""
    try:
        text = (folder / STACKS).read_bytes()[:_MAX_STACKS_BYTES].decode("utf-8", "replace")
    except OSError:
        return ""
    file = loader.rpartition(":")[0]
    for thread in text.split("\n  thread ")[1:]:
        frames = [line.strip() for line in thread.splitlines()[1:] if line.startswith("    ")]
        if file and any(frame.startswith(f"{file}:") for frame in frames):
            return next((frame for frame in frames if not _OF_A_LIBRARY.search(frame)), frames[0])
    return ""


def loader_call(session: Session, event: Event) -> LoaderCalled | None:
    """The loader call around an event."""
    at: Event | None = event
    while at is not None:
        if isinstance(at.body, LoaderCalled):
            return at.body
        at = session.parent(at)
    return None


def raised_at(failure: StageFailed) -> str:
    """`file:line function` of the innermost frame that is no library's: where the engine did what failed."""
    own = (frame for frame in failure.frames if not _OF_A_LIBRARY.search(frame))
    return next(own, failure.frames[0] if failure.frames else failure.where)


def given(called: LoaderCalled) -> str:
    """What a loader was called with besides the tensors: `shard q, expert 3`; "" for neither."""
    shard = f"shard {called.shard_id}" if called.shard_id else ""
    expert = f"expert {called.expert_id}" if called.expert_id >= 0 else ""
    return ", ".join(part for part in (shard, expert) if part)


def _of_call(called: LoaderCalled, rank: int) -> Sequence[tuple[str, str]]:
    at = f"rank {rank}" if rank >= 0 else ""
    return (
        ("parameter", f"{called.parameter}  {called.parameter_dtype}{list(called.parameter_shape)}"),
        ("tensor", f"{called.checkpoint_name}  {called.tensor_dtype}{list(called.tensor_shape)}"),
        ("call", ", ".join(part for part in (at, given(called)) if part)),
        ("loader", called.loader),
        *([("defined at", called.where)] if called.where else []),
    )


def _of_module(failure: StageFailed, rank: int) -> Sequence[tuple[str, str]]:
    told = (("module", failure.module), ("rank", str(rank) if rank >= 0 else ""))
    return tuple((label, text) for label, text in told if text)
