"""A scale of the checkpoint was dropped although the weight beside it was loaded."""

from __future__ import annotations

from collections.abc import Iterator

from sessions.dtypes import is_plain
from sessions.modules import WEIGHTS, is_companion
from workbench.diagnosis.case import Case, leaf
from workbench.diagnosis.finding import Finding, Rule

_OPTIONAL = (
    "input_scale",
    "input_global_scale",
    "input_offset",
    "k_scale",
    "v_scale",
    "kv_scale",
    "q_scale",
    "prob_scale",
)
"""Scales that an engine may leave out for a reason: dynamic activations, a cache kept as it is."""


def _judge(case: Case) -> Iterator[Finding]:
    if not case.is_whole:
        return
    calls = {one.name: one for one in case.consumption}
    for one in case.consumption:
        owner, _, last = one.name.rpartition(".")
        if one.calls or one.name not in case.header or not is_companion(last):
            continue
        used = [calls[f"{owner}.{w}"] for w in WEIGHTS if f"{owner}.{w}" in calls and calls[f"{owner}.{w}"].calls]
        if used and not (last.startswith("input") and _is_computed(case, used[0].parameters[0])):
            yield Finding(
                class_=RULE.class_,
                severity="warning" if last in _OPTIONAL else "error",
                title=f"{leaf(owner)}.{last} was dropped, its weight was loaded",
                sentence=(
                    f"{one.name} ({one.dtype} {list(one.shape)}) went into no parameter, while {used[0].name} "
                    f"({used[0].dtype}) was loaded into {used[0].parameters[0]}: the weight is used without its {last}."
                ),
                remedy=f"Give the module a parameter for {last}; let load_weights map its name like the weight's.",
                module=used[0].parameters[0].rpartition(".")[0],
                tensor=one.name,
                evidence=(case.evidence(case.listed_at.get(one.name, -1), "header", f"{one.dtype} {list(one.shape)}"),),
            )


def _is_computed(case: Case, parameter: str) -> bool:
    """True for a weight that was dequantized as it was loaded: its inputs are not quantized either."""
    view = next((one for one in case.parameters if one.name == parameter), None)
    return view is not None and is_plain(view.dtype)


RULE = Rule("scale/dropped", _judge, follows=("skip-decision/fused-name", "precision/contradiction"))
