"""Parameters that the checkpoint has no tensor for, into which the engine put values of its own."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from difflib import get_close_matches

from sessions.checkpoint import Consumption
from sessions.ledger import names_in
from sessions.modules import is_companion
from sessions.parameters import ParameterView
from workbench.diagnosis.case import Case, leaf
from workbench.diagnosis.finding import Evidence, Finding, Rule

SIMILAR = 0.8
"""How alike two names must be, from 0 to 1, for one to be taken as the other misspelt."""
WHOLE = 4
"""From so many parameters on, a layer that has none of them is one finding."""
_NUMBERED = re.compile(r".*?\.\d+(?=\.)")


def _judge(case: Case) -> Iterator[Finding]:
    layers: dict[tuple[int, str], list[ParameterView]] = defaultdict(list)
    missing: dict[tuple[int, str], list[ParameterView]] = defaultdict(list)
    for view in case.parameters:
        layers[view.rank, _layer(view.name)].append(view)
        is_told = (view.rank, view.name) in case.never_filled
        if is_told and view.rank in case.initialising_ranks and not _is_given(view):
            missing[view.rank, _layer(view.name)].append(view)
    for (rank, layer), views in missing.items():
        if layer and len(views) == len(layers[rank, layer]) >= WHOLE:
            yield _whole_layer(case, layer, views)
        else:
            yield from (_finding(case, view) for view in views)


def _is_given(view: ParameterView) -> bool:
    """True when a call was about a tensor for it, and not only about its scales."""
    names = (name for call in view.loader_calls for name in names_in(call.checkpoint_name))
    return any(is_companion(leaf(view.name)) or not is_companion(leaf(name)) for name in names)


def _layer(name: str) -> str:
    found = _NUMBERED.match(name)
    return found.group() if found else ""


def _finding(case: Case, view: ParameterView) -> Finding:
    told_at, now = case.never_filled[view.rank, view.name]
    wanted, other = _wanted(case, view.name), _unused_like(case, view)
    name = ".".join(view.name.split(".")[-2:])
    tensor = other.name if other else wanted
    evidence = [
        case.evidence(view.position, "parameter", f"{view.dtype} {list(view.shape)}"),
        case.evidence(told_at, "engine", "reports it as missing"),
    ]
    if other:
        said = f"{other.dtype} {list(other.shape)}, used by nobody"
        evidence.append(case.evidence(case.listed_at.get(other.name, -1), "header", said, other.name))
    return Finding(
        class_=RULE.class_,
        severity="error",
        title=f"{name} is not in the checkpoint, it holds {_in_short(now)}",
        sentence=(
            f"The checkpoint has no {wanted}. The engine reports {view.name} ({view.dtype} {list(view.shape)}) as "
            f"missing and {_said(case, now)}." + (f" {other.name} has that shape, and nobody used it." if other else "")
        ),
        remedy=(
            f"Rename {leaf(other.name.rpartition('.')[0])}.{leaf(other.name)} to {wanted}, or map that name."
            if other
            else f"Add {wanted} to the checkpoint; see whether the file that had it was left out."
        ),
        module=view.module,
        parameter=view.name,
        tensor=tensor,
        rank=view.rank,
        evidence=tuple(evidence),
    )


def _in_short(now: str) -> str:
    return now.partition(",")[0] or "uninitialised memory"


def _said(case: Case, now: str) -> str:
    if now:
        return f"filled it itself: {now}"
    return "ended while it initialised what is missing" if case.has_failed_loading else "left it uninitialised"


def _whole_layer(case: Case, layer: str, views: list[ParameterView]) -> Finding:
    told_at, now = case.never_filled[views[0].rank, views[0].name]
    wanted = _wanted(case, views[0].name)
    return Finding(
        class_=RULE.class_,
        severity="error",
        title=f"nothing of {layer} is in the checkpoint, it holds {_in_short(now)}",
        sentence=(
            f"The checkpoint has no tensor for any of the {len(views)} parameters of {layer}, such as {wanted}. The "
            f"engine reports them as missing and {_said(case, now)} ({views[0].name})."
        ),
        remedy="See whether a file of the checkpoint was left out, and whether config.json counts too many layers.",
        module=layer,
        parameter=views[0].name,
        tensor=wanted,
        rank=views[0].rank,
        evidence=(
            case.evidence(told_at, "engine", f"reports {len(views)} parameters as missing"),
            *(Evidence(None, "missing", _wanted(case, view.name)) for view in views[1:3]),
        ),
    )


def _wanted(case: Case, name: str) -> str:
    """The name that the checkpoint would have for a parameter: as for its like in other layers, or its neighbours."""
    for view in case.parameters:
        tensor = view.loader_calls[-1].checkpoint_name if view.loader_calls else ""
        numbers = re.findall(r"\.(\d+)(?=\.)", view.name)
        if tensor and ", " not in tensor and view.name != name and _plain(view.name) == _plain(name):
            return _numbered(tensor, iter(re.findall(r"\.(\d+)(?=\.)", name)), len(numbers))
    owner = name.rpartition(".")[0]
    while owner:
        for view in case.parameters:
            tensor = view.loader_calls[-1].checkpoint_name if view.loader_calls else ""
            rest = view.name.removeprefix(f"{owner}.")
            if rest != view.name and ", " not in tensor and tensor.endswith(f".{rest}"):
                return f"{tensor.removesuffix(rest)}{name.removeprefix(f'{owner}.')}"
        owner = owner.rpartition(".")[0]
    return name


def _plain(name: str) -> str:
    return re.sub(r"\.\d+(?=\.)", ".*", name)


def _numbered(tensor: str, numbers: Iterator[str], count: int) -> str:
    """A tensor's name with other numbers, where it has as many as its parameter."""
    if len(re.findall(r"\.\d+(?=\.)", tensor)) != count:
        return tensor
    return re.sub(r"\.\d+(?=\.)", lambda _: f".{next(numbers)}", tensor)


def _unused_like(case: Case, view: ParameterView) -> Consumption | None:
    """A tensor of that shape which nobody used and whose name is nearly the one that is missing."""
    wanted = _wanted(case, view.name)
    unused = {one.name: one for one in case.consumption if not one.calls and one.shape == view.shape}
    alike = [name for name in unused if _parts_apart(name, wanted) == 1]
    near = get_close_matches(wanted, alike, n=1, cutoff=SIMILAR)
    return unused[near[0]] if near else None


def _parts_apart(one: str, other: str) -> int:
    """How many of the parts of two dotted names differ; all of them in names of different lengths."""
    pair = one.split("."), other.split(".")
    same = sum(a == b for a, b in zip(*pair, strict=False))
    return max(map(len, pair)) - same


RULE = Rule("parameter/missing", _judge, follows=("precision/contradiction",))
