"""Ranks of one load that did not do the same: other decisions on a module, or other loader calls."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from workbench.diagnosis.case import Case
from workbench.diagnosis.finding import Finding, Rule

Call = tuple[str, str, str]
MOST_NAMED = 3


def _judge(case: Case) -> Iterator[Finding]:
    yield from _decided_otherwise(case)
    if case.is_whole:
        yield from _called_otherwise(case)


def _decided_otherwise(case: Case) -> Iterator[Finding]:
    """The same module left as it is on one rank and quantized on another, or given another method."""
    by_module = defaultdict(list)
    for decision in case.decisions:
        by_module[decision.module].append(decision)
    for module, decisions in by_module.items():
        told = {(one.method, one.is_skipped): one for one in decisions}
        if len({one.rank for one in decisions}) < 2 or len(told) < 2:
            continue
        first, other = list(told.values())[:2]
        yield Finding(
            class_=RULE.class_,
            severity="error",
            title=f"ranks decided differently on {module.rpartition('.')[2]}",
            sentence=f"{module} got {first.method} on rank {first.rank} and {other.method} on rank {other.rank}.",
            remedy="Compare the configs that the ranks read; a name or a list that depends on the rank does this.",
            module=module,
            rank=other.rank,
            evidence=(
                case.evidence(first.at, "decision", f"rank {first.rank}: {first.method}", module),
                case.evidence(other.at, "decision", f"rank {other.rank}: {other.method}", module),
            ),
        )


def _called_otherwise(case: Case) -> Iterator[Finding]:
    """Calls that one loaded rank made and another did not; those for single experts may belong to one rank alone."""
    calls = _calls(case)
    ranks = sorted(rank for rank in calls if rank in case.ranks_loaded)
    for rank in ranks[1:]:
        missing, extra = calls[ranks[0]] - calls[rank], calls[rank] - calls[ranks[0]]
        if not missing and not extra:
            continue
        name = next(iter(missing or extra))
        yield Finding(
            class_=RULE.class_,
            severity="warning",
            title=f"rank {rank} made other loader calls than rank {ranks[0]}",
            sentence=f"Rank {rank} made {_count(extra)} that rank {ranks[0]} did not, and left out {_count(missing)}: "
            f"{_named(missing or extra)}.",
            remedy="Look at both ranks on the timeline (< >); a loader that leaves early on one rank does this.",
            parameter=name[0],
            tensor=name[1],
            rank=rank,
        )


def _calls(case: Case) -> Mapping[int, Counter[Call]]:
    found: dict[int, Counter[Call]] = defaultdict(Counter)
    rows = case.session.rows("loader.called", ("parameter", "checkpoint_name", "shard_id", "expert_id"))
    for _, _, _, _, _, rank, parameter, name, shard_id, expert_id in rows:
        if rank >= 0 and (expert_id is None or expert_id < 0):
            found[rank][parameter or "", name or "", shard_id or ""] += 1
    return found


def _count(calls: Counter[Call]) -> str:
    number = sum(calls.values())
    return f"{number:,} call{'s' * (number != 1)}"


def _named(calls: Counter[Call]) -> str:
    names = [f"{name or 'a tensor'} for {parameter}" for parameter, name, _ in list(calls)[:MOST_NAMED]]
    more = len(calls) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


RULE = Rule("rank/divergence", _judge, follows_anywhere=("shard/rank-offset",))
