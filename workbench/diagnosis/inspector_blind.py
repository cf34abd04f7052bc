"""What the session could not see: inspectors that ended, tracepoints that were not found, limits that were reached."""

from __future__ import annotations

from collections.abc import Iterator

from inspectors.probe.events import InspectorFaulted, RecordingCapped, TracepointMissing
from sessions.event import Event
from workbench.diagnosis.case import Case
from workbench.diagnosis.finding import Finding, Rule


def _judge(case: Case) -> Iterator[Finding]:
    for event in case.session.of_kinds("inspector.faulted", "tracepoint.missing", "recording.capped"):
        said = _said(event)
        if said is not None:
            title, sentence, remedy = said
            yield Finding(
                class_=RULE.class_,
                severity="note",
                title=title,
                sentence=sentence,
                remedy=remedy,
                rank=event.rank if event.rank >= 0 else None,
                evidence=(case.evidence(event.position, event.kind, sentence),),
            )


def _said(event: Event) -> tuple[str, str, str] | None:
    body = event.body
    if isinstance(body, InspectorFaulted):
        return (
            f"the inspector {body.inspector} ended",
            f"{body.inspector} raised {body.error} at {body.where}; what comes after {event.ref} is not seen.",
            "Report it; the load itself was not disturbed.",
        )
    if isinstance(body, TracepointMissing):
        return (
            f"{body.target} of {body.engine} was not found",
            f"{body.target} did not resolve ({body.reason}): {body.wanted_stage or 'its stage'} is not recorded.",
            f"This version of {body.engine} differs from those the adapter knows; see loadscope doctor.",
        )
    if isinstance(body, RecordingCapped):
        return (
            f"recording ended at {body.limit}",
            f"The limit {body.limit} = {body.value:,} was reached; later events were counted, not kept.",
            "Raise the limit (LOADSCOPE_MAX_EVENTS) or record a lower level.",
        )
    return None


RULE = Rule("session/blind", _judge)
