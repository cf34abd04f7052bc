"""The verdict: runs every rule, merges alike findings, puts follow-ons below their causes and root causes first."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

from sessions.session import Session
from workbench.diagnosis.case import Case, pattern
from workbench.diagnosis.finding import SEVERITIES, Finding, Rule

GROUP = "loadscope.rules"
CONSTANT = "RULE"


def findings(session: Session, limits: str = "") -> tuple[Finding, ...]:
    """What is wrong with a session, root causes first, each followed by its follow-ons, numbered F1, F2 …

    `limits` names those of a device by which launches are judged, "" for those that the session was recorded with.
    """
    return session.kept(f"findings {limits}".strip(), lambda: judged(Case(session, limits), rules()))


def rules() -> tuple[Rule, ...]:
    """The rules of this folder (files with a constant RULE) and those of other distributions."""
    found = [getattr(importlib.import_module(f"{__package__}.{name}"), CONSTANT, None) for name in _file_names()]
    foreign = [point.load() for point in entry_points(group=GROUP)]
    return tuple(rule for rule in (*found, *foreign) if isinstance(rule, Rule))


def _file_names() -> list[str]:
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_"))


def judged(case: Case, by: tuple[Rule, ...]) -> tuple[Finding, ...]:
    """The findings of these rules, merged, linked, ordered and numbered."""
    merged = [(rule, finding) for rule in by for finding in _merged(rule.judge(case))]
    causes = {n: _causes(case, rule, finding, merged) for n, (rule, finding) in enumerate(merged)}
    parents = {n: c[0] for n, c in causes.items() if c}
    ordered = _ordered([finding for _, finding in merged], parents)
    ids = {n: f"F{place}" for place, n in enumerate(ordered, 1)}
    explains = {n: tuple(ids[m] for m in ordered if parents.get(m) == n) for n in ids}
    told = {n: merged[n][1] for n in ordered}
    for n, cause in parents.items():
        told[n] = replace(told[n], remedy=f"Repair {ids[cause]} first: this follows from it.")
    return tuple(replace(told[n], id=ids[n], root=n not in parents, explains=explains[n]) for n in ordered)


def _merged(found: Iterator[Finding]) -> list[Finding]:
    """One finding for all places that differ in layer, expert or rank only; the first place speaks for all."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for one in found:
        key = (one.class_, one.severity, pattern(one.module), pattern(one.parameter), pattern(one.tensor), one.title)
        groups.setdefault(key, []).append(one)
    return [_joined(group) for group in groups.values()]


def _joined(group: list[Finding]) -> Finding:
    modules = tuple(dict.fromkeys(m for f in group for m in (*f.modules, f.module) if m))
    ranks = {f.rank for f in group}
    rank = group[0].rank if len(ranks) == 1 else None
    return replace(group[0], seen=sum(f.seen for f in group), modules=modules, rank=rank)


def _causes(case: Case, rule: Rule, finding: Finding, merged: list[tuple[Rule, Finding]]) -> list[int]:
    out, here = [], {case.built_name(module) for module in finding.modules}
    for n, (_, other) in enumerate(merged):
        if other is finding:
            continue
        is_same_place = any(case.built_name(module) in here for module in other.modules)
        if other.class_ in rule.follows_anywhere or (other.class_ in rule.follows and is_same_place):
            out.append(n)
    # the nearest cause is the one on the same module; among those the first rule's
    return sorted(out, key=lambda n: not any(case.built_name(module) in here for module in merged[n][1].modules))


def _ordered(found: list[Finding], parents: dict[int, int]) -> list[int]:
    children: dict[int, list[int]] = {}
    for child, cause in parents.items():
        children.setdefault(cause, []).append(child)

    def key(n: int) -> tuple[int, bool, int, int]:
        first = min((e.position for e in found[n].evidence if e.position is not None), default=1 << 62)
        return SEVERITIES.index(found[n].severity), n not in children, first, n

    out: list[int] = []

    def add(n: int) -> None:
        if n not in out:
            out.append(n)
            for child in sorted(children.get(n, ()), key=key):
                add(child)

    roots = [n for n in range(len(found)) if n not in parents]
    for n in sorted(roots, key=lambda r: (r not in children, *key(r))):
        add(n)
    for n in range(len(found)):  # what explains itself in a circle stands last
        add(n)
    return out
