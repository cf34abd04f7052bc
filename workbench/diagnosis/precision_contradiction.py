"""A module was built quantized while the checkpoint holds it plain and without a scale, or the reverse."""

from __future__ import annotations

from collections.abc import Iterator

from sessions.decisions import AS_IS, DecisionView
from workbench.diagnosis.case import Case, leaf
from workbench.diagnosis.finding import Evidence, Finding, Rule

_MAPPING = "packed_modules_mapping"


def _judge(case: Case) -> Iterator[Finding]:
    for decision in case.decisions:
        is_named = decision.hidden_entry >= 0 and decision.ignored[decision.hidden_entry] == decision.module
        if decision.is_contradiction and not is_named:
            yield _finding(case, decision)


def _finding(case: Case, decision: DecisionView) -> Finding:
    name, stored = leaf(decision.module), _stored(decision)
    built = f"{decision.built} ({decision.method})" if decision.method else decision.built
    said = built if decision.built == AS_IS else f"as {built}"
    return Finding(
        class_=RULE.class_,
        severity="error",
        title=(
            f"{name} is built quantized, the checkpoint holds {decision.header_dtype}"
            if decision.is_built_quantized
            else f"{name} is built as is, the checkpoint holds it quantized"
        ),
        sentence=f"{name} was built {said}, while its tensors in the checkpoint are {stored}.{_reason(decision)}",
        remedy=_remedy(decision, name),
        module=decision.module,
        tensor=decision.header[0].name,
        rank=decision.rank,
        evidence=_evidence(case, decision, built),
        steps=_steps(decision),
    )


def _stored(decision: DecisionView) -> str:
    beside = decision.header[0].companions
    return f"{decision.header_dtype} {'with ' + ', '.join(beside) if beside else 'without a scale'}"


def _hidden_parts(decision: DecisionView) -> tuple[str, ...]:
    """The parts that the list names although only the fused name was compared; empty for another cause."""
    return tuple(leaf(part) for part in decision.parts) if decision.hidden_entry >= 0 else ()


def _other_name(decision: DecisionView) -> str:
    """The entry that names the module as the checkpoint does, which the model calls otherwise; "" for another cause."""
    entry = decision.ignored[decision.hidden_entry] if decision.hidden_entry >= 0 else ""
    return entry if entry == decision.name_on_disk else ""


def _reason(decision: DecisionView) -> str:
    parts, other = _hidden_parts(decision), _other_name(decision)
    if other:
        return (
            f" Entry {decision.hidden_entry} of the list names it as the checkpoint does, {other}; the model calls it "
            f"{decision.module}, so the entry did not match."
        )
    if not parts:
        return ""
    return (
        f" The list of {len(decision.ignored)} entries names {' and '.join(parts)}; the model's {_MAPPING} has no "
        f"{leaf(decision.module)}, so only the fused name was compared, and no entry matched."
    )


def _remedy(decision: DecisionView, name: str) -> str:
    parts = _hidden_parts(decision)
    if _other_name(decision):
        return f"Write {decision.module} in the list, or load with the model class that the list was written for."
    if parts:
        return f"Give the model's {_MAPPING} the entry {name} -> {', '.join(parts)}, on every device."
    if decision.is_built_quantized:
        return (
            f"Name {decision.module} in the ignore list of the quantization config, or quantize it in the checkpoint."
        )
    return f"Take {decision.matched or decision.module} out of the ignore list, or give the layer a fitting method."


def _evidence(case: Case, decision: DecisionView, built: str) -> tuple[Evidence, ...]:
    matched = decision.matched or f"0 of {len(decision.ignored)} matched, {len(decision.tried)} tried"
    out = [case.evidence(decision.at, "decision", matched, ", ".join(decision.tried))]
    if decision.hidden_entry >= 0:
        entry = decision.ignored[decision.hidden_entry]
        what = "it by its name on disk" if _other_name(decision) else f"the part {leaf(entry)}"
        text = f"entry {decision.hidden_entry} names {what}"
        out.append(Evidence(None, "config", text, names=entry))
    if decision.method_position >= 0:
        out.append(case.evidence(decision.method_position, "method", built, decision.module))
    for tensor in decision.header[:2]:
        beside = f"beside it {', '.join(tensor.companions)}" if tensor.companions else "no scale"
        text = f"{leaf(tensor.name.rpartition('.')[0])} {tensor.dtype} {list(tensor.shape)}, {beside}"
        out.append(case.evidence(case.listed_at.get(tensor.name, -1), "header", text, tensor.name))
    return tuple(out)


def _steps(decision: DecisionView) -> tuple[tuple[str, str, str], ...]:
    parts, name = _hidden_parts(decision), leaf(decision.module)
    compared = f"looked for {name} only" if parts else decision.matched or f"0 of {len(decision.ignored)} matched"
    config = ("config", f"list names {', '.join(parts)}", "plain") if parts else None
    steps = (
        ("header", f"{name} is {decision.header_dtype}", "plain"),
        ("decision", compared, "warning"),
        ("create", f"built {decision.built}", "error"),
    )
    return (config, *steps) if config is not None else steps


RULE = Rule("precision/contradiction", _judge)
