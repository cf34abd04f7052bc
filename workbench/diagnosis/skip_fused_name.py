"""A module that the ignore list names was quantized, because its fused name was expanded into other names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sessions.decisions import DecisionView
from workbench.diagnosis.case import Case, first_line, in_short, leaf
from workbench.diagnosis.finding import Evidence, Finding, Rule


def _judge(case: Case) -> Iterator[Finding]:
    for decision in case.decisions:
        entry = decision.hidden_entry
        if entry >= 0 and decision.ignored[entry] == decision.module:
            yield _expanded(case, decision, entry)


def _expanded(case: Case, decision: DecisionView, entry: int) -> Finding:
    name = leaf(decision.module)
    parts = [leaf(tried) for tried in decision.tried]
    table = {"fallback": "the fallback table of fused names", "model": "the model's packed_modules_mapping"}.get(
        decision.expansion_source, "a table of fused names"
    )
    return Finding(
        class_=RULE.class_,
        severity="error",
        title=f"{name}: in the skip list, quantized",
        sentence=(
            f"The fused name {name} was expanded ({name} -> {', '.join(parts)}) from {table}{_lacks(case, decision)}, "
            f"so entry {entry} of the list, which has the exact name, was never tried"
            f"{_header_says(decision)}."
        ),
        remedy=_remedy(decision, name),
        module=decision.module,
        tensor=decision.header[0].name if decision.header else None,
        rank=decision.rank,
        evidence=_evidence(case, decision, entry, f"entry {entry} has the exact name"),
        steps=_steps(case, decision, entry, f"looked for {' and '.join(_ends(name, parts))}"),
    )


def _lacks(case: Case, decision: DecisionView) -> str:
    stored = {name.rpartition(".")[0] for name in case.header}
    return "" if stored & set(decision.tried) else " into parts that this checkpoint does not have"


def _remedy(decision: DecisionView, name: str) -> str:
    if decision.expansion_source == "model":
        return f"Take {name} out of the model's packed_modules_mapping, or list its parts instead of {name}."
    return (
        f"Take {name} out of the fallback table of fused names: leave only qkv_proj and gate_up_proj there; "
        f"architectures that store the parts apart declare them in packed_modules_mapping."
    )


def _header_says(decision: DecisionView) -> str:
    if not decision.header:
        return ""
    beside = "with" if any(t.companions for t in decision.header) else "with no companion"
    return f"; the checkpoint holds {decision.header_dtype} {beside} scale"


def _evidence(case: Case, decision: DecisionView, entry: int, says: str) -> tuple[Evidence, ...]:
    tried = f"0 of {len(decision.ignored)} matched, {len(decision.tried)} tried"
    out = [
        case.evidence(decision.position, "decision", tried, ", ".join(decision.tried)),
        Evidence(None, "config", says, names=decision.ignored[entry]),
    ]
    for tensor in decision.header[:2]:
        beside = f"beside it {', '.join(tensor.companions)}" if tensor.companions else "no scale"
        text = f"{tensor.dtype} {list(tensor.shape)}, {beside}"
        out.append(case.evidence(case.listed_at.get(tensor.name, -1), "header", text, tensor.name))
    failure = case.failure_of(decision.module)
    if failure is not None:
        text = f"{in_short(failure[1])} at {failure[1].failed_stage}"
        out.append(case.evidence(failure[0].position, "failed", text, first_line(failure[1])))
    return tuple(out)


def _ends(name: str, parts: Sequence[str]) -> list[str]:
    """Parts without the front that they share with the fused name: in_proj_ba, in_proj_b → …b."""
    front = name[: name.rfind("_") + 1]
    is_shared = bool(front) and all(part.startswith(front) and part != front for part in parts)
    return [f"…{part[len(front) :]}" if is_shared else part for part in parts]


def _steps(case: Case, decision: DecisionView, entry: int, looked: str) -> tuple[tuple[str, str, str], ...]:
    created = next(
        (
            b
            for b in case.session.rows("weights.created", _CREATED)
            if b[6] == decision.module and b[5] == decision.rank
        ),
        None,
    )
    shape = f"{[sum(created[7]), created[8]]} " if created is not None else ""
    steps = [
        ("config", f"entry {entry} is {leaf(decision.ignored[entry])}", "plain"),
        ("decision", looked, "warning"),
        ("create", f"{shape}{decision.built}", "plain"),
    ]
    failure = case.failure_of(decision.module)
    if failure is not None:
        steps.append(("host", f"{leaf(failure[1].error)} {in_short(failure[1])}", "error"))
    return tuple(steps)


_CREATED = ("module", "output_partition_sizes", "input_size_per_partition")

RULE = Rule("skip-decision/fused-name", _judge)
