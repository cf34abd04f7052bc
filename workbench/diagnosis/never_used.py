"""Checkpoint tensors that no loader call used although the model has the parameter for them."""

from __future__ import annotations

from collections.abc import Iterator

from sessions.modules import FUSED, is_companion
from workbench.diagnosis.case import Case, leaf
from workbench.diagnosis.finding import Finding, Rule

_FUSED_OF = {part: fused for fused, parts in FUSED.items() for part in parts}


def _judge(case: Case) -> Iterator[Finding]:
    """Tensors of modules the model does not have (draft layers, tied heads, rotary tables) are left out on purpose."""
    if not case.is_whole:
        return
    held = {view.name for view in case.parameters}
    filled = {view.name for view in case.parameters if view.loader_calls}
    for one in case.consumption:
        if one.calls or one.name not in case.header or is_companion(leaf(one.name)):
            continue
        wanted = _parameter_for(one.name, held)
        if wanted:
            yield Finding(
                class_=RULE.class_,
                severity="warning" if wanted in filled else "error",
                title=f"{'.'.join(one.name.split('.')[-2:])} of the checkpoint was never used",
                sentence=(
                    f"{one.name} ({one.dtype} {list(one.shape)}, {one.size_bytes:,} bytes) was "
                    f"{'read, but given to no loader' if one.is_read else 'never read'}; the model has {wanted}."
                ),
                remedy="Look at the name mapping of load_weights: the tensor is skipped or renamed to nothing there.",
                module=wanted.rpartition(".")[0],
                parameter=wanted,
                tensor=one.name,
                evidence=(case.evidence(case.listed_at.get(one.name, -1), "header", f"{one.dtype} {list(one.shape)}"),),
            )


def _parameter_for(name: str, held: set[str]) -> str:
    if name in held:
        return name
    owner, _, last = name.rpartition(".")
    prefix, _, part = owner.rpartition(".")
    fused = f"{prefix}.{_FUSED_OF.get(part, '')}.{last}"
    return fused if fused in held else ""


RULE = Rule("checkpoint/never-used", _judge)
