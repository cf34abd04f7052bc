"""A tensor of another shape than its parameter, which the engine was given and left out."""

from __future__ import annotations

from collections.abc import Iterator

from inspectors.probe.events import LoaderCalled
from sessions.event import Event
from sessions.ledger import names_in
from sessions.modules import is_companion
from workbench.diagnosis.case import Case, leaf
from workbench.diagnosis.finding import Finding, Rule


def _judge(case: Case) -> Iterator[Finding]:
    if not case.never_filled:
        return
    last: dict[tuple[int, str], Event] = {}
    for event in case.session.of_kinds("loader.called"):
        if isinstance(event.body, LoaderCalled) and (event.rank, event.body.parameter) in case.never_filled:
            last[event.rank, event.body.parameter] = event
    for event in last.values():
        call = event.body
        if not isinstance(call, LoaderCalled) or call.tensor_shape == call.parameter_shape:
            continue
        given = [name for name in names_in(call.checkpoint_name) if not is_companion(leaf(name))]
        if call.outcome == "returned" and (given or is_companion(leaf(call.parameter))):
            yield _finding(case, event, call, given[0] if given else call.checkpoint_name)


def _finding(case: Case, event: Event, call: LoaderCalled, tensor: str) -> Finding:
    _, now = case.never_filled[event.rank, call.parameter]
    name = ".".join(call.parameter.split(".")[-2:])
    is_transposed = len(call.tensor_shape) > 1 and call.tensor_shape == (*call.parameter_shape[:-2],
                                                                        *call.parameter_shape[:-3:-1])  # fmt: skip
    how = ": transposed" if is_transposed else ""
    became = f", and put other values there: {now}" if now else ""
    return Finding(
        class_=RULE.class_,
        severity="error",
        title=f"{name} is {list(call.parameter_shape)}, the checkpoint holds {list(call.tensor_shape)}{how}",
        sentence=(
            f"{tensor} ({call.tensor_dtype} {list(call.tensor_shape)}) was given for {call.parameter} "
            f"({call.parameter_dtype} {list(call.parameter_shape)}){how}. The engine did not take it{became}."
        ),
        remedy=(
            "Store it with its last two dimensions exchanged; the field stores [output, input]."
            if is_transposed
            else "Compare the sizes in config.json with the checkpoint's header: one of them is of another model."
        ),
        module=call.parameter.rpartition(".")[0],
        parameter=call.parameter,
        tensor=tensor or None,
        rank=event.rank if event.rank >= 0 else None,
        evidence=(
            case.evidence(event.position, "call", f"{call.checkpoint_name} for {call.parameter}"),
            case.evidence(case.listed_at.get(tensor, -1), "header", f"{list(call.tensor_shape)}"),
        ),
    )


RULE = Rule("parameter/shape", _judge)
