"""A judged comparison in words: findings, the lines of the terminal, and the object of `--json`."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from workbench.compare.comparison import Comparison, OutputRow, SideFacts, WeightRow
from workbench.compare.expectation import Judged
from workbench.compare.metrics import Measure
from workbench.compare.verdict import Trouble, Verdict
from workbench.diagnosis.finding import Evidence, Finding

Either = Judged[OutputRow | WeightRow]

NAME_WIDTH = 46
MOST_WEIGHTS = 3
MOST_UNPAIRED = 12
_FAULTS = {
    "checkpoint": "the weights on disk differ by more than their format explains",
    "decision": "it was not built as the checkpoint stores it",
    "load": "its weights on disk are alike, so it is the load or a kernel",
}
_REMEDIES = {
    "checkpoint": "Make the candidate's checkpoint again, and compare the scales of this module with its weight.",
    "decision": "See why the module was built so: loadscope open, d.",
    "load": "See which rows its weight and its scales took: loadscope coverage, or loadscope open, p.",
}


def findings_of(verdict: Verdict) -> tuple[Finding, ...]:
    """One finding for each trouble, the first in the forward pass first; modules around it are explained by it."""
    return tuple(_finding(number, one) for number, one in enumerate(verdict.troubles, 1))


def _finding(number: int, trouble: Trouble) -> Finding:
    worst = trouble.worst
    rows: tuple[Either, ...] = (*trouble.outputs, *trouble.weights)
    where = "weight" if not trouble.outputs else "output"
    return Finding(
        class_=f"precision/{trouble.fault}",
        severity="error",
        title=f"{trouble.name} stands out: {worst.why}",
        sentence=f"The {where} of {trouble.name} is too far from the reference; {_FAULTS[trouble.fault]}.",
        remedy=_REMEDIES[trouble.fault],
        module=trouble.module,
        tensor=next((one.row.name for one in trouble.weights), None),
        evidence=tuple(Evidence(None, _what(one), one.why, names=one.row.name) for one in rows),
        id=f"F{number}",
        modules=trouble.follows,
    )


def _what(judged: Either) -> str:
    return "weight" if isinstance(judged.row, WeightRow) else "output"


def as_json(comparison: Comparison, verdict: Verdict, folder: Path, verb: str, exit_code: int) -> dict[str, object]:
    """The object of `--json`. Ratios that are no number are null: `is_exact` tells equal arrays from unknown ones."""
    first = verdict.first
    return {
        "schema": 1,
        "verb": verb,
        "outcome": "findings" if exit_code else "ok",
        "exit_code": exit_code,
        "session": str(folder),
        "engine": comparison.candidate.engine,
        "device": comparison.candidate.device,
        "tp": comparison.candidate.tp,
        "reference": _side(comparison.reference, folder),
        "candidate": _side(comparison.candidate, folder),
        "tokens": list(comparison.tokens),
        "thresholds": asdict(verdict.thresholds),
        "is_same_checkpoint": comparison.is_same_checkpoint,
        "first": None if first is None else {"module": first.module, "slots": list(first.slots), "layer": first.layer},
        "findings": [finding.as_json() for finding in findings_of(verdict)],
        "outputs": [_row(one) for one in verdict.outputs],
        "weights": [_row(one) for one in verdict.weights],
        "unpaired": [asdict(one) for one in comparison.unpaired],
    }


def _side(side: SideFacts, folder: Path) -> dict[str, object]:
    return {**asdict(side), "session": str((folder / side.folder).resolve())}


def _row(judged: Either) -> dict[str, object]:
    row = judged.row
    named: dict[str, object]
    if isinstance(row, OutputRow):
        named = {"module": row.module, "slot": row.slot or None, "ranks_are": row.how}
        named["input_sqnr_db"] = None if not row.input_noise else _number(-10 * math.log10(row.input_noise))
    else:
        named = {"tensor": row.name, "modules": list(row.modules)}
    return {
        **named,
        "layer": row.layer if row.layer >= 0 else None,
        "shape": list(row.shape),
        **_measured(row.measure),
        "expected_sqnr_db": _number(judged.expected_db),
        "excess_db": _number(judged.excess_db),
        "stands_out": judged.stands_out,
        "why": judged.why or None,
    }


def _measured(said: Measure) -> dict[str, object]:
    return {
        "cosine": said.cosine,
        "sqnr_db": _number(said.sqnr_db),
        "max_abs_error": _number(said.max_abs_error),
        "relative_error": _number(said.relative_error),
        "not_finite_on_one_side": said.odd,
        "elements": said.elements,
        "is_exact": said.is_exact,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


# --- the terminal


def report(comparison: Comparison, verdict: Verdict, folder: Path) -> list[str]:
    """The lines: the two sides, every layer and module, what stands out first and why, what was not compared."""
    weights = "the same checkpoint" if comparison.is_same_checkpoint else f"{len(comparison.weights):,} weights"
    return [
        f"reference {comparison.reference.told}",
        f"candidate {comparison.candidate.told}",
        f"input     {len(comparison.tokens)} tokens: {','.join(map(str, comparison.tokens[:16]))}",
        f"compared  {len(comparison.outputs):,} outputs, {weights}",
        "",
        *_table(verdict),
        "",
        *_verdict_lines(verdict),
        *_unpaired_lines(comparison),
        f"session   {folder}",
        f"next      loadscope open {folder}      # e shows this comparison",
    ]


def _table(verdict: Verdict) -> Iterator[str]:
    head = (
        f"  {'module':{NAME_WIDTH}}  {'cosine':>9}  {'SQNR':>7}  {'expected':>8}  {'max abs err':>11}  {'rel err':>8}"
    )
    yield head
    weights = _weights_of(verdict.weights)
    told: set[str] = set()
    for one in verdict.outputs:
        yield _line(one, one.row.name or "the model's result")
        leaf = one.row.slot
        own = [w for w in weights.get(one.row.module, ()) if not leaf or _leaf(w) == leaf]
        yield from _weight_lines([w for w in own if w.row.name not in told])
        told.update(w.row.name for w in own)
    yield from _weight_lines([one for one in verdict.weights if one.row.name not in told], is_all=True)


def _weights_of(weights: Sequence[Judged[WeightRow]]) -> dict[str, list[Judged[WeightRow]]]:
    found: dict[str, list[Judged[WeightRow]]] = defaultdict(list)
    for one in weights:
        for module in one.row.modules:
            found[module].append(one)
    return found


def _leaf(judged: Either) -> str:
    return judged.row.name.rpartition(".")[0].rpartition(".")[2]


def _weight_lines(weights: Sequence[Judged[WeightRow]], *, is_all: bool = False) -> Iterator[str]:
    if len(weights) <= MOST_WEIGHTS or is_all:
        for one in weights:
            yield _line(one, f"  weight {one.row.name}")
        return
    shown = [one for one in weights if one.stands_out] or [max(weights, key=lambda one: one.row.measure.noise)]
    for one in shown:
        yield _line(one, f"  weight {one.row.name}")
    yield f"    … of {len(weights)} weights, {len(shown)} shown"


def _line(judged: Either, name: str) -> str:
    said = judged.row.measure
    name = name if len(name) <= NAME_WIDTH else "…" + name[-NAME_WIDTH + 1 :]
    cosine = "–" if said.cosine is None else f"{said.cosine:.6f}"
    mark = "✗" if judged.stands_out else " "
    numbers = f"{cosine:>9}  {_db(said.sqnr_db):>7}  {_db(judged.expected_db):>8}  {said.max_abs_error:>11.3g}"
    return f"{mark} {name:{NAME_WIDTH}}  {numbers}  {said.relative_error:>8.2g}"


def _db(value: float) -> str:
    return "exact" if value == math.inf else f"{value:.1f}" if math.isfinite(value) else "–"


def _verdict_lines(verdict: Verdict) -> Iterator[str]:
    said = verdict.thresholds
    limits = (
        f"{said.output_db:g} dB above what input, format and neighbours explain, or {said.weight_db:g} dB for a weight"
    )
    if verdict.first is None:
        yield f"verdict   alike: nothing is more than {limits}"
        return
    for number, trouble in enumerate(verdict.troubles):
        head = "first     " if number == 0 else "then      "
        yield f"{head}✗ {trouble.name}: {trouble.worst.why}"
        yield f"          {_FAULTS[trouble.fault]}"
    yield f"limits    {limits}"


def _unpaired_lines(comparison: Comparison) -> Iterator[str]:
    left = comparison.unpaired
    for number, one in enumerate(left[:MOST_UNPAIRED]):
        yield f"{'left out ' if number == 0 else ' ' * 9} {one.name} ({one.side}): {one.why}"
    if len(left) > MOST_UNPAIRED:
        yield f"{' ' * 10}and {len(left) - MOST_UNPAIRED} more (--json lists all)"
