"""A module was built quantized while the checkpoint holds it plain and without a scale, or the reverse."""

from __future__ import annotations

from collections.abc import Iterator

from sessions.decisions import DecisionView
from workbench.diagnosis.case import Case, leaf
from workbench.diagnosis.finding import Finding, Rule


def _judge(case: Case) -> Iterator[Finding]:
    for decision in case.decisions:
        if decision.is_contradiction and decision.hidden_entry < 0:
            yield _finding(case, decision)


def _finding(case: Case, decision: DecisionView) -> Finding:
    name, tensor = leaf(decision.module), decision.header[0]
    stored = (
        f"{decision.header_dtype} {'with ' + ', '.join(tensor.companions) if tensor.companions else 'without a scale'}"
    )
    built = f"{decision.built} ({decision.method})" if decision.method else decision.built
    if decision.is_built_quantized:
        title = f"{name} is built quantized, the checkpoint holds {decision.header_dtype}"
        remedy = (
            f"Name {decision.module} in the ignore list of the quantization config, or quantize it in the checkpoint."
        )
    else:
        title = f"{name} is built as is, the checkpoint holds it quantized"
        remedy = (
            f"Take {decision.matched or decision.module} out of the ignore list, or give the layer a fitting method."
        )
    header = case.evidence(
        case.listed_at.get(tensor.name, -1), "header", f"{stored}: {tensor.name} {list(tensor.shape)}"
    )
    chosen = case.evidence(decision.at, "decision", f"{decision.method or 'method'}: {built}")
    return Finding(
        class_=RULE.class_,
        severity="error",
        title=title,
        sentence=f"{decision.module} was built as {built}, while its tensors in the checkpoint are {stored}.",
        remedy=remedy,
        module=decision.module,
        tensor=tensor.name,
        rank=decision.rank,
        evidence=(chosen, header),
        steps=(
            ("header", f"{name} is {decision.header_dtype}", "plain"),
            ("decision", decision.matched or f"0 of {len(decision.ignored)} matched", "warning"),
            ("create", f"built {decision.built}", "error"),
        ),
    )


RULE = Rule("precision/contradiction", _judge)
