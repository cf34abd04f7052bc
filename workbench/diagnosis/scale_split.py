"""A scale of one element that stands for several projections was cut among them, instead of given to each."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator

from inspectors.probe.events import LoaderCalled, StageFailed
from sessions.event import Event
from sessions.modules import is_companion
from workbench.diagnosis.case import Case, first_line, leaf
from workbench.diagnosis.finding import Finding, Rule

_SHAPE_WORDS = ("split", "narrow", "size", "shape", "chunk", "expand", "index", "dimension")
"""An exception that speaks of none of these failed for another reason."""


def _judge(case: Case) -> Iterator[Finding]:
    for event, failure in case.failures:
        call = _call(case, event, failure)
        if call is not None and isinstance(call.body, LoaderCalled) and _is_split(call.body, failure):
            yield _finding(case, event, failure, call)


def _call(case: Case, event: Event, failure: StageFailed) -> Event | None:
    if not failure.call:
        return None
    position = case.session.position(event.stream, failure.call)
    return case.session.event(position) if 0 <= position < len(case.session) else None


def _is_split(call: LoaderCalled, failure: StageFailed) -> bool:
    is_single = math.prod(call.tensor_shape) == 1 and is_companion(leaf(call.checkpoint_name))
    is_shared = shards(call.shard_id) > 1 or (not call.shard_id and math.prod(call.parameter_shape) > 1)
    return is_single and is_shared and any(word in failure.message.lower() for word in _SHAPE_WORDS)


def shards(shard_id: str) -> int:
    """How many projections a recorded shard id means: 3 for "(0, 1, 2)", 0 when the caller gave none."""
    try:
        value = ast.literal_eval(shard_id)
    except (ValueError, SyntaxError):
        return int(bool(shard_id))
    return len(value) if isinstance(value, tuple) else 1


def _finding(case: Case, event: Event, failure: StageFailed, call: Event) -> Finding:
    body = call.body
    if not isinstance(body, LoaderCalled):
        raise TypeError(f"{call.ref} is a {call.kind}, expected a loader call")
    count = shards(body.shard_id) or math.prod(body.parameter_shape)
    source, module = ".".join(body.checkpoint_name.split(".")[-2:]), leaf(failure.module)
    into = f"{module}.{leaf(body.parameter)}"
    shape = list(body.tensor_shape)
    return Finding(
        class_=RULE.class_,
        severity="error",
        title=f"{source}: one element, cut in {count}",
        sentence=(
            f"{source} is {body.tensor_dtype} {shape}: one scale for the {count} projections of shard_id "
            f"{body.shard_id or 'none'}. {leaf(body.loader)} cut it among them as it cuts a weight, so that {into} "
            f"{list(body.parameter_shape)} could not be filled; the host said: {first_line(failure)}"
        ),
        remedy=(
            f"Copy a scale of one element, [] or [1], into each of the entries of {into} that its shard_id names; "
            "split weights along their outputs, and block scales by blocks."
        ),
        module=failure.module or None,
        parameter=body.parameter,
        tensor=body.checkpoint_name,
        rank=event.rank if event.rank >= 0 else None,
        evidence=(
            case.evidence(call.position, "call", f"{into}, shard_id {body.shard_id or 'none'}", body.parameter),
            case.evidence(
                case.listed_at.get(body.checkpoint_name, -1), "header", f"{shape}, one element", body.checkpoint_name
            ),
            case.evidence(event.position, "failed", first_line(failure), leaf(failure.error)),
        ),
        steps=(
            ("config", f"{source} {shape}", "plain"),
            ("create", f"{into} {list(body.parameter_shape)}", "plain"),
            ("load", f"shard_id {body.shard_id or 'none'}: cut in {count}", "warning"),
            ("host", leaf(failure.error), "error"),
        ),
    )


RULE = Rule("scale/split", _judge, follows=("skip-decision/fused-name", "precision/contradiction"))
