"""One of the numbered tensors that make up a parameter, such as experts, is not there or is shaped otherwise."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from sessions.ledger import names_in
from sessions.parameters import ParameterView
from workbench.diagnosis.case import Case
from workbench.diagnosis.finding import Finding, Rule

_LAST_NUMBER = re.compile(r"^(.*\.)(\d+)(\.(?!.*\.\d+\.).*)$")
Series = dict[str, dict[int, str]]
"""Names by their number, by the name with that number left out."""


def _judge(case: Case) -> Iterator[Finding]:
    for view in case.parameters:
        names = {name for call in view.loader_calls for name in names_in(call.checkpoint_name)}
        series = _series(names)
        numbers = {number for one in series.values() for number in one}
        for pattern, held in series.items():
            for number in sorted(numbers - set(held)):
                yield _absent(case, view, pattern.replace("*", str(number), 1), len(held))
            if case.has_failed_loading:
                yield from _odd(case, view, list(held.values()))


def _series(names: set[str]) -> Series:
    out: Series = defaultdict(dict)
    for name in names:
        found = _LAST_NUMBER.match(name)
        if found:
            out[f"{found[1]}*{found[3]}"][int(found[2])] = name
    return {pattern: held for pattern, held in out.items() if len(held) > 1}


def _absent(case: Case, view: ParameterView, name: str, others: int) -> Finding:
    filled = view.coverage.never_written
    so = f": {filled:,} of its {view.elements:,} elements were never filled" if filled and case.is_whole else ""
    return Finding(
        class_=RULE.class_,
        severity="error",
        title=f"{'.'.join(name.split('.')[-3:])} is not in the checkpoint, {others} of its kind are",
        sentence=f"{view.name} is made of several tensors, and {name} is not among them{so}.",
        remedy=f"Add {name} to the checkpoint; see whether the file that had it was left out.",
        module=view.module,
        parameter=view.name,
        tensor=name,
        rank=view.rank,
        evidence=(case.evidence(view.calls[-1], "call", f"{others} tensors of this kind for {view.name}"),),
    )


def _odd(case: Case, view: ParameterView, names: list[str]) -> Iterator[Finding]:
    """Those whose shape or dtype in the header is not that of most others."""
    kinds = {n: (case.header[n].dtype, case.header[n].shape) for n in names if n in case.header}
    if len(kinds) < 3:
        return
    (most, count), *_ = Counter(kinds.values()).most_common()
    odd = [name for name in kinds if kinds[name] != most] if count * 2 > len(kinds) else []
    for name in odd:
        dtype, shape = kinds[name]
        how = ": transposed" if shape[::-1] == most[1] and len(shape) > 1 else ""
        yield Finding(
            class_=RULE.class_,
            severity="error",
            title=f"{'.'.join(name.split('.')[-3:])} is {dtype} {list(shape)}, {count} of its kind are otherwise",
            sentence=(
                f"{view.name} is made of several tensors; {name} is {dtype} {list(shape)}, the {count} others are "
                f"{most[0]} {list(most[1])}{how}."
            ),
            remedy="Store it like the others: tensors of another shape or dtype cannot be stacked.",
            module=view.module,
            parameter=view.name,
            tensor=name,
            rank=view.rank,
            evidence=(case.evidence(case.listed_at.get(name, -1), "header", f"{dtype} {list(shape)}", name),),
        )


RULE = Rule("checkpoint/incomplete", _judge)
