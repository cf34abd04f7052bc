"""The host failed: an exception that no other rule tells better, or an end that no watched step saw."""

from __future__ import annotations

from collections.abc import Iterator

from inspectors.probe.events import LoaderCalled, StageFailed
from sessions.bundle.layout import STACKS
from sessions.event import Event
from sessions.manifest import Outcome
from sessions.rowtext import name_of
from workbench.diagnosis.case import Case, first_line, is_divisibility, leaf
from workbench.diagnosis.finding import Evidence, Finding, Rule
from workbench.failing import failing_call, given, how_it_ended, loader_call, raised_at

NEAR_THE_END = 64


def _judge(case: Case) -> Iterator[Finding]:
    for event, failure in case.failures:
        if not is_divisibility(failure):
            yield _raised(case, event, failure)
    outcome = case.outcome
    if outcome is not None and outcome.state in {"failed", "killed"} and not case.failures:
        yield _ended(case, outcome)


def _raised(case: Case, event: Event, failure: StageFailed) -> Finding:
    place = failure.parameter or failure.module or failure.failed_stage or "a watched step"
    of = f" of {'.'.join(place.split('.')[-2:]) if failure.parameter else leaf(place)}" if failure.module else ""
    evidence = [case.evidence(event.position, "failed", f"{leaf(failure.error)}: {first_line(failure)}")]
    if failure.call:
        call = case.session.position(event.stream, failure.call)
        called = loader_call(case.session, event)
        at = f"{failure.checkpoint_name or place} at {failure.failed_stage}"
        evidence.append(case.evidence(call, "call", _called(called) if called is not None else at))
    blamed = _call_of(case, event, failure)
    if blamed is not None and isinstance(blamed.body, LoaderCalled):
        evidence.append(case.evidence(blamed.position, "call", _called(blamed.body)))
    if failure.frames:
        evidence.append(Evidence(None, "where", raised_at(failure)))
    return Finding(
        class_=RULE.class_,
        severity="error",
        title=f"{leaf(failure.error)} at {failure.failed_stage or 'load'}{of}",
        sentence=f"The host raised {leaf(failure.error)} while at {place}: {first_line(failure)}",
        remedy=(
            f"Open the failing call ({(blamed or event).ref}) in the timeline: it shows what was given and what the "
            "parameter could take."
        ),
        module=failure.module or None,
        parameter=failure.parameter or None,
        tensor=failure.checkpoint_name or getattr(blamed.body if blamed else None, "checkpoint_name", "") or None,
        rank=event.rank if event.rank >= 0 else None,
        evidence=tuple(evidence),
    )


def _called(call: LoaderCalled) -> str:
    shapes = f"{call.tensor_dtype} {list(call.tensor_shape)} for {list(call.parameter_shape)}"
    return ", ".join(part for part in (f"{call.checkpoint_name} {shapes}", given(call)) if part)


def _call_of(case: Case, event: Event, failure: StageFailed) -> Event | None:
    """The loader call of the parameter that an engine blames when all of them have returned."""
    if failure.call or not failure.parameter:
        return None
    calls = (one for one in case.session.of_kinds("loader.called") if one.rank == event.rank)
    mine = [one for one in calls if getattr(one.body, "parameter", "") == failure.parameter]
    return mine[-1] if mine else None


def _ended(case: Case, outcome: Outcome) -> Finding:
    count, how = case.session.log_count, how_it_ended(outcome)
    lines = [line.text.strip() for line in case.session.log_lines(max(0, count - 8), count)]
    last = next((line for line in reversed(lines) if line), "")
    position = len(case.session) - 1
    evidence = [case.evidence(position, "last event", case.session.event(position).kind)] if position >= 0 else []
    inside, place = _innermost_open(case), "outside of every watched step"
    if inside is not None:
        place = f"inside {inside.kind} ({inside.ref}, {name_of(inside.body)})"
        evidence.insert(0, case.evidence(inside.position, "in flight", name_of(inside.body)))
    failing = failing_call(case.session)
    waits = dict(failing.facts).get("waits at", "") if failing is not None else ""
    evidence += [Evidence(None, "waits at", waits)] if waits else []
    return Finding(
        class_=RULE.class_,
        severity="error",
        title=how,
        sentence=f"{how[0].upper()}{how[1:]}, {place}{f'; last line: {last}' if last else ''}.",
        remedy=(
            f"Read in {STACKS} of the session what each thread was doing, and the end of the log (l)."
            if "timed_out_after_s" in outcome.extra
            else "Read the end of the host's log (l); a signal without a message is often the out-of-memory killer."
        ),
        evidence=(*evidence, *([Evidence(None, "log", last)] if last else [])),
    )


def _innermost_open(case: Case) -> Event | None:
    count = len(case.session)
    return next((e for e in reversed(case.session.page(count - NEAR_THE_END, count)) if e.is_open), None)


RULE = Rule(
    "host/failed",
    _judge,
    follows=(
        "scale/split",
        "skip-decision/fused-name",
        "precision/contradiction",
        "parameter/missing",
        "parameter/shape",
        "checkpoint/incomplete",
    ),
    follows_anywhere=("kernel/grid-limit",),
)
