"""A quantized weight was loaded whose scale is not in the checkpoint, though its like in other layers have one."""

from __future__ import annotations

from collections.abc import Iterator

from sessions.dtypes import is_plain
from sessions.modules import HeaderTensor, Names
from workbench.diagnosis.case import Case, leaf, pattern
from workbench.diagnosis.finding import Finding, Rule


def _judge(case: Case) -> Iterator[Finding]:
    if not case.is_whole:
        return
    names, alone, beside = Names(case.header, {}), dict[str, HeaderTensor](), dict[str, str]()
    for owner in dict.fromkeys(name.rpartition(".")[0] for name in case.header):
        for weight in names.of_owner(owner):
            scale = next((one for one in weight.companions if "scale" in one and not one.startswith("input")), "")
            if scale:
                beside.setdefault(pattern(owner), scale)
            elif not is_plain(weight.dtype):
                alone[owner] = weight
    filled = {one.name: one.parameters for one in case.consumption if one.calls}
    held = {view.name: view for view in case.parameters}
    for owner, weight in alone.items():
        scale, parameters = beside.get(pattern(owner), ""), filled.get(weight.name, ())
        # a parameter of its own for the scale is told as missing
        if not scale or not parameters or f"{parameters[0].rpartition('.')[0]}.{scale}" in held:
            continue
        yield Finding(
            class_=RULE.class_,
            severity="error",
            title=f"{leaf(owner)}.{leaf(weight.name)} is {weight.dtype} and has no {scale}",
            sentence=(
                f"The checkpoint has no {owner}.{scale}, as others of its kind have; {weight.name} ({weight.dtype}) "
                f"was loaded into {parameters[0]} ({held[parameters[0]].dtype}) without it."
            ),
            remedy=f"Add {owner}.{scale} to the checkpoint; see whether the file that had it was left out.",
            module=parameters[0].rpartition(".")[0],
            parameter=parameters[0],
            tensor=f"{owner}.{scale}",
            evidence=(
                case.evidence(case.listed_at.get(weight.name, -1), "header", f"{weight.dtype}, alone", weight.name),
                case.evidence(held[parameters[0]].position, "parameter", f"{held[parameters[0]].dtype}"),
            ),
        )


RULE = Rule("scale/missing", _judge, follows=("parameter/missing", "checkpoint/incomplete"))
