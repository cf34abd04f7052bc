"""A session of which something is missing: a stream cut off or damaged, or events that were not kept."""

from __future__ import annotations

from collections.abc import Iterator

from sessions.stream import Stream
from workbench.diagnosis.case import Case
from workbench.diagnosis.finding import Finding, Rule


def _judge(case: Case) -> Iterator[Finding]:
    has_ended = case.outcome is not None and case.outcome.state != "running"
    for damage in case.session.damage:
        yield _finding(case, "part of the session cannot be read", damage, None)
    for stream in case.session.streams:
        if has_ended and not stream.is_closed:
            yield _finding(case, "a stream was cut off", _cut_off(stream), stream)


def _cut_off(stream: Stream) -> str:
    pid = stream.meta.get("pid", "?")
    return f"{stream.path.name}: the process {pid} ended without closing it; its last event is #{stream.count}."


def _finding(case: Case, title: str, sentence: str, stream: Stream | None) -> Finding:
    position = case.session.position(stream.number, stream.count) if stream is not None else -1
    return Finding(
        class_=RULE.class_,
        severity="note" if stream is not None else "warning",
        title=title,
        sentence=sentence,
        remedy="What came before is complete; record the load again for the rest.",
        evidence=(case.evidence(position, "last event", sentence),),
    )


RULE = Rule("session/incomplete", _judge, follows_anywhere=("host/failed",))
