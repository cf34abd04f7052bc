"""The object that `loadscope coverage --json` prints."""

from __future__ import annotations

from dataclasses import asdict

from sessions.faults import MOST_PAIRS, Faults, Twice
from sessions.misplaced import Misplaced
from sessions.slots import Slot
from workbench.coverage.gathering import Left, Report
from workbench.coverage.wording import box_json, reference, write_json

MOST_BOXES = 10_000


def said(report: Report, verb: str, code: int) -> dict[str, object]:
    """The whole object; its keys stay, more may come."""
    return {
        "schema": 1,
        "verb": verb,
        "outcome": "findings" if code else "ok",
        "exit_code": code,
        "session": str(report.session.folder),
        "tp": report.tp,
        "ranks": list(report.ranks),
        "coverage": asdict(report.totals),
        "parameters": [_parameter(report, one) for one in report.shown],
        "checkpoint": [_left(one) for one in report.left],
    }


def _parameter(report: Report, one: Faults) -> dict[str, object]:
    view = one.view
    return {
        "parameter": view.name,
        "rank": view.rank,
        "shape": list(view.shape),
        "dtype": view.dtype,
        **asdict(view.coverage),
        "unknown_because": one.unknown_because or None,
        "never": [box_json(box, view.shape) for box in one.never[:MOST_BOXES]],
        "awaited": list(one.awaited),
        "twice": [box_json(box, view.shape) for box in one.twice_boxes[:MOST_BOXES]],
        "overlaps": [_overlap(report, one, pair) for pair in one.twice[:MOST_PAIRS]],
        "misplaced": [_misplaced(report, one, wrong) for wrong in one.misplaced],
        "suspected": [
            {"event": reference(report.session, s.at), "call": reference(report.session, s.position),
             "operation": s.operation or None, "reason": s.reason}
            for s in one.suspicions
        ],
        "slots": [_slot(report, one, slot) for slot in one.slots],
    }  # fmt: skip


def _overlap(report: Report, one: Faults, pair: Twice) -> dict[str, object]:
    return {
        "boxes": [box_json(box, one.view.shape) for box in pair.boxes[:MOST_BOXES]],
        "elements": pair.elements,
        "first": write_json(report.session, pair.first),
        "second": write_json(report.session, pair.second),
    }


def _misplaced(report: Report, one: Faults, wrong: Misplaced) -> dict[str, object]:
    return {
        "kind": wrong.kind,
        "boxes": [box_json(box, one.view.shape) for box in wrong.boxes[:MOST_BOXES]],
        "elements": wrong.elements,
        "wanted": wrong.wanted,
        "write": write_json(report.session, wrong.write),
    }


def _slot(report: Report, one: Faults, slot: Slot) -> dict[str, object]:
    return {
        "shard_id": slot.shard_id or None,
        "expert_id": slot.expert_id if slot.expert_id >= 0 else None,
        **box_json(slot.box, one.view.shape or (1,)),
        "elements": slot.elements,
        "never_written": slot.never,
        "written_twice": slot.twice,
        "tensors": list(slot.tensors),
        "calls": [reference(report.session, position) for position in slot.calls],
        "is_inferred": slot.is_inferred,
    }


def _left(one: Left) -> dict[str, object]:
    told, shape = one.consumption, one.tensor.shape if one.tensor is not None else one.consumption.shape
    never = None if one.never is None else [box_json(box, shape) for box in one.never[:MOST_BOXES]]
    return {
        "tensor": told.name,
        "dtype": told.dtype,
        "shape": list(told.shape),
        "read_shape": list(shape),
        "file": one.tensor.file if one.tensor is not None else None,
        "begin": one.tensor.begin if one.tensor is not None else None,
        "end": one.tensor.end if one.tensor is not None else None,
        "is_read": told.is_read,
        "calls": told.calls,
        "size_bytes": told.size_bytes,
        "never_consumed_bytes": told.never_consumed_bytes,
        "never": never,
        "taken_by": [{"rank": rank, "boxes": [box_json(box, shape) for box in boxes]} for rank, boxes in one.taken_by],
    }
