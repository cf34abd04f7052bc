"""Entries of the ignore list that name nothing: neither a module of the model nor a tensor of the checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from workbench.diagnosis.case import Case
from workbench.diagnosis.finding import Finding, Rule

MOST_NAMED = 4


def _judge(case: Case) -> Iterator[Finding]:
    lists = {decision.ignored: decision for decision in case.decisions if decision.ignored}
    if not case.is_whole or not lists:
        return
    known = _known_names(case)
    # engines add spellings of their own to the list that the checkpoint declares
    declared = case.declared_strings if any(e in case.declared_strings for es in lists for e in es) else frozenset()
    for entries, decision in lists.items():
        stale = [
            (n, entry)
            for n, entry in enumerate(entries)
            if not _names_something(entry, known) and (not declared or entry in declared)
        ]
        if not stale:
            continue
        named = ", ".join(f"{entry} (entry {n})" for n, entry in stale[:MOST_NAMED])
        more = f" and {len(stale) - MOST_NAMED} more" if len(stale) > MOST_NAMED else ""
        yield Finding(
            class_=RULE.class_,
            severity="warning",
            title=f"{len(stale)} list {'entry matches' if len(stale) == 1 else 'entries match'} no module",
            sentence=f"Of {len(entries)} list entries these name no module and no tensor: {named}{more}.",
            remedy="Compare its prefix with the names on the decisions screen; such an entry skips nothing.",
            evidence=(case.evidence(decision.position, "config", f"list of {len(entries)} entries, first used here"),),
        )


def _known_names(case: Case) -> set[str]:
    """Modules and what holds them, so that an entry may name a whole layer."""
    names = {decision.module for decision in case.decisions} | {view.module for view in case.parameters}
    names |= {view.name for view in case.parameters} | set(case.header)
    out: set[str] = set()
    for name in names:
        at = name
        while at and at not in out:
            out.add(at)
            at = at.rpartition(".")[0]
    return out


def _names_something(entry: str, known: set[str]) -> bool:
    if entry in known or not entry:
        return bool(entry)
    if entry.startswith("re:"):
        return _fits(entry.removeprefix("re:"), known)
    if any(c in entry for c in "*?["):
        return any(fnmatchcase(name, entry) for name in known)
    return any(f".{entry}." in f".{name}." for name in known) or (not entry.isidentifier() and _fits(entry, known))


def _fits(expression: str, known: set[str]) -> bool:
    try:
        wanted = re.compile(expression)
    except re.error:
        return False
    return any(wanted.match(name) for name in known)


RULE = Rule("skip-decision/stale-entry", _judge)
