"""A size that does not divide by the quantization's block (or by the ranks): an effect, unless nothing explains it."""

from __future__ import annotations

from collections.abc import Iterator

from inspectors.probe.events import StageFailed
from sessions.event import Event
from sessions.loaded import tp_of
from workbench.diagnosis.case import Case, first_line, in_short, is_divisibility, leaf, remainder
from workbench.diagnosis.finding import Finding, Rule


def _judge(case: Case) -> Iterator[Finding]:
    for event, failure in case.failures:
        if is_divisibility(failure):
            yield _finding(case, event, failure)


def _finding(case: Case, event: Event, failure: StageFailed) -> Finding:
    size, block = remainder(failure) or (0, 0)
    title = f"{size:,} not divisible by {block:,}" if block else "a size does not divide"
    name, stage = leaf(failure.module) or "a layer", failure.failed_stage or "a watched step"
    return Finding(
        class_=RULE.class_,
        severity="error",
        title=f"{name}: {title}",
        sentence=(
            f"The host raised {leaf(failure.error)} at {stage}: {first_line(failure)} "
            "A layer that is not quantized has no blocks, so nothing would have to divide."
        ),
        remedy=_remedy(case, failure, size, block),
        module=failure.module or None,
        parameter=failure.parameter or None,
        tensor=failure.checkpoint_name or None,
        rank=event.rank if event.rank >= 0 else None,
        evidence=(case.evidence(event.position, "failed", f"{in_short(failure)} at {stage}", first_line(failure)),),
    )


def _remedy(case: Case, failure: StageFailed, size: int, block: int) -> str:
    first = "See first whether the module should be quantized at all (decisions screen)"
    tp = tp_of(case.session)
    whole = size * tp
    fits = [n for n in range(1, tp + 1) if block and whole % n == 0 and whole // n % block == 0]
    if fits:
        rows = f"{whole // fits[-1]:,} rows are whole blocks of {block}"
        return f"{first}; if so, load with --tp {fits[-1]}, at which {rows}."
    name = leaf(failure.module) or "it"
    if not block:
        return f"{first}; if so, try a smaller --tp."
    return (
        f"{first}: its {whole:,} rows are no whole blocks of {block} at any --tp up to {tp}, "
        f"so {name} belongs into the ignore list of the checkpoint."
    )


RULE = Rule("shard/divisibility", _judge, follows=("skip-decision/fused-name", "precision/contradiction"))
