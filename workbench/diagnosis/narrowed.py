"""Tensors that were cast to a narrower type as they were read, with what their values lost by it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inspectors.probe.events import TensorListed
from sessions.checkpoint import tensors
from sessions.coverage import elements
from sessions.dtypes import spelled
from sessions.modules import is_companion
from workbench.coverage.sourcefile import raw_bytes
from workbench.diagnosis.case import Case, leaf
from workbench.diagnosis.finding import Finding, Rule

MOST_TENSORS, MOST_BYTES = 64, 1 << 20
"""So many tensors, scales first, are read again to see what they lost; larger ones are not."""
_BITS = {"float64": (11, 52), "float32": (8, 23), "float16": (5, 10), "bfloat16": (8, 7)}
"""Bits of exponent and fraction."""


@dataclass
class _Loss:
    """What casting did to the elements that were looked at."""

    seen: int = 0
    changed: int = 0
    worst: float = 0.0


def _judge(case: Case) -> Iterator[Finding]:
    read = {row[6]: spelled(row[7] or "") for row in case.session.rows("tensor.read", ("checkpoint_name", "dtype"))}
    groups: dict[tuple[str, str], list[TensorListed]] = defaultdict(list)
    for one in case.header.values():
        stored, became = spelled(one.dtype), read.get(one.checkpoint_name, "")
        if _is_narrower(became, stored):
            groups[stored, became].append(one)
    for (stored, became), cast in groups.items():
        cast.sort(key=lambda one: not is_companion(leaf(one.checkpoint_name)))
        loss = _loss(case, cast, stored, became)
        if loss.changed or not loss.seen:
            yield _finding(case, cast, stored, became, loss)


def _is_narrower(one: str, other: str) -> bool:
    """Whether a floating type has fewer bits of exponent or of fraction than another."""
    return one in _BITS and other in _BITS and any(a < b for a, b in zip(_BITS[one], _BITS[other], strict=True))


def _finding(case: Case, cast: list[TensorListed], stored: str, became: str, loss: _Loss) -> Finding:
    scales = sum(is_companion(leaf(one.checkpoint_name)) for one in cast)
    count, first = len(cast), cast[0]
    kind = "scale" if scales == count else "tensor"
    total = sum(elements(one.shape) for one in cast)
    lost = (
        f"{loss.changed:,} of {loss.seen:,} elements that were compared with the file changed, by at most "
        f"{loss.worst:.2g} of their value"
        if loss.seen
        else "the files are not here, so what it changed is not known"
    )
    return Finding(
        class_=RULE.class_,
        severity="note",
        title=f"{count} {kind}{'s were' if count > 1 else ' was'} cast from {stored} to {became} as read",
        sentence=(
            f"{count} tensors of the checkpoint ({scales} of them scales; {total:,} elements), such as "
            f"{first.checkpoint_name}, are {stored} and were cast to {became} as they were read: {lost}."
        ),
        remedy=f"Load with dtype {stored}, or keep it where {became} is meant: the checkpoint's values are finer.",
        tensor=first.checkpoint_name if count == 1 else None,
        evidence=(
            case.evidence(case.listed_at.get(first.checkpoint_name, -1), "header", stored, first.checkpoint_name),
        ),
    )


def _loss(case: Case, cast: list[TensorListed], stored: str, became: str) -> _Loss:
    loss, places = _Loss(), tensors(case.session)
    small = [one for one in cast if 0 < one.end - one.begin <= MOST_BYTES]
    for one in small[:MOST_TENSORS]:
        raw = raw_bytes(case.session, places[one.checkpoint_name], one.begin, one.end)
        if raw.problem:
            return _Loss()
        before = _values(raw.data, stored)
        after = _rounded(before, became)
        real = np.isfinite(before) & (before != 0)
        loss.seen += before.size
        loss.changed += int((after != before)[~np.isnan(before)].sum())
        with np.errstate(invalid="ignore"):
            apart = np.abs(after[real] - before[real]) / np.abs(before[real])
        loss.worst = max(loss.worst, float(apart.max(initial=0.0)))
    return loss


def _values(data: bytes, dtype: str) -> npt.NDArray[np.float64]:
    if dtype == "bfloat16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).astype(np.float64)


def _rounded(values: npt.NDArray[np.float64], dtype: str) -> npt.NDArray[np.float64]:
    """To the nearest value of a type, ties to the even one."""
    with np.errstate(over="ignore"):
        if dtype != "bfloat16":
            return values.astype(dtype).astype(np.float64)
        bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(np.float64)


RULE = Rule("precision/narrowed", _judge)
