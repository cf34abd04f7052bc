"""A rank took the part of a tensor that belongs to another rank: each has a part, and not its own."""

from __future__ import annotations

from collections.abc import Iterator

from sessions.loaded import tp_of
from sessions.misplaced import Misplaced, misplaced
from workbench.diagnosis.case import Case, leaf
from workbench.diagnosis.finding import Evidence, Finding, Rule

MOST_CALLS = 4


def _judge(case: Case) -> Iterator[Finding]:
    groups: dict[tuple[str, str, str, int], list[Misplaced]] = {}
    for found in misplaced(case.session).values():
        for one in found:
            if one.kind == "rank":
                write = one.write
                groups.setdefault((one.parameter, write.checkpoint_name, write.shard_id, write.expert_id), []).append(
                    one
                )
    for (parameter, tensor, _, _), wrong in groups.items():
        yield _finding(case, parameter, tensor, sorted(wrong, key=lambda one: one.rank))


def _finding(case: Case, parameter: str, tensor: str, wrong: list[Misplaced]) -> Finding:
    first, module = wrong[0], parameter.rpartition(".")[0]
    source = ".".join(tensor.split(".")[-2:])
    took = _rows(first)
    return Finding(
        class_=RULE.class_,
        severity="error",
        title=f"{leaf(module)}: another rank's part of {source}",
        sentence=(
            f"Rank {first.rank} took {took} of {tensor}, expected {first.wanted}; {len(wrong)} of "
            f"{tp_of(case.session)} ranks hold a part that is not theirs. Every element was written."
        ),
        remedy="Compare the start of the cut with rank × length: an offset, a wrong group, or a rank counted from one.",
        module=module,
        parameter=parameter,
        tensor=tensor,
        rank=first.rank if len(wrong) == 1 else None,
        evidence=tuple(_evidence(case, one, source) for one in wrong[:MOST_CALLS]),
        steps=(
            ("load", f"rank {first.rank} takes {took} of {source}", "error"),
            ("model", f"expected {first.wanted}", "plain"),
        ),
    )


def _rows(one: Misplaced) -> str:
    sides = zip(one.write.source_start, one.write.source_length, strict=True)
    return f"[{', '.join(f'{a}–{a + n - 1}' for a, n in sides)}]"


def _evidence(case: Case, one: Misplaced, source: str) -> Evidence:
    return case.evidence(one.write.at, "written", f"rank {one.rank} ← {_rows(one)} of {source}", one.parameter)


RULE = Rule("shard/rank-offset", _judge, follows=("loader/asymmetry",))
