"""Bytes of a checkpoint file: which tensors lie there, and which elements of parameters they filled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

from sessions.maps import boxes_of_range
from sessions.session import Session
from sessions.taken import Bytes, bytes_of, files
from workbench.coverage.asking import AskedBytes, asked_bytes, named
from workbench.coverage.wording import box_json, boxes_text, write_json, write_text


@dataclass(frozen=True)
class BytesReport:
    """The tensors with bytes in the range asked for, in order; `gaps` are stretches that belong to none."""

    session: Session
    asked: AskedBytes
    found: tuple[Bytes, ...]
    gaps: tuple[tuple[int, int], ...]


def bytes_report(session: Session, text: str) -> BytesReport:
    """Look bytes up. Raises UserError (exit 2) for other text and for a file that is not of the checkpoint."""
    asked = asked_bytes(text)
    known = files(session)
    name = asked.file if asked.file in known else PurePath(asked.file).name
    asked = AskedBytes(named(name, known, "file", "the checkpoint"), asked.begin, asked.end)
    found = bytes_of(session, asked.file, asked.begin, asked.end)
    return BytesReport(session, asked, found, tuple(_gaps(asked, found)))


def _gaps(asked: AskedBytes, found: tuple[Bytes, ...]) -> Iterator[tuple[int, int]]:
    at = asked.begin
    for one in sorted(found, key=lambda one: one.begin):
        if one.begin > at:
            yield at, one.begin
        at = max(at, one.end)
    if at < asked.end:
        yield at, asked.end


def bytes_json(report: BytesReport, verb: str) -> dict[str, object]:
    """The object of `--bytes … --json`."""
    return {
        "schema": 1,
        "verb": verb,
        "outcome": "ok",
        "exit_code": 0,
        "session": str(report.session.folder),
        "file": report.asked.file,
        "begin": report.asked.begin,
        "end": report.asked.end,
        "of_no_tensor": [list(gap) for gap in report.gaps],
        "tensors": [_tensor(report, one) for one in report.found],
    }


def _tensor(report: BytesReport, one: Bytes) -> dict[str, object]:
    shape = one.tensor.shape
    return {
        "tensor": one.tensor.name,
        "dtype": one.tensor.dtype,
        "read_shape": list(shape),
        "begin": one.begin,
        "end": one.end,
        "elements": [box_json(box, shape) for box in boxes_of_range(one.first, one.last, shape)],
        "is_unused": one.is_unused,
        "filled": [
            {
                "parameter": taken.view.name,
                "rank": taken.view.rank,
                "boxes": None if taken.boxes is None else [box_json(box, taken.view.shape) for box in taken.boxes],
                **write_json(report.session, taken.write),
            }
            for taken in one.taken
        ],
    }


def bytes_text(report: BytesReport) -> Iterator[str]:
    """The lines for a person."""
    yield f"{report.asked.file}  bytes {report.asked.begin:,}–{report.asked.end:,}"
    for begin, end in report.gaps:
        yield f"  {begin:,}–{end:,}  belongs to no tensor: header, padding, or after the end"
    for one in report.found:
        shape = one.tensor.shape
        held = boxes_text(boxes_of_range(one.first, one.last, shape), shape) if one.last > one.first else ""
        yield f"  {one.begin:,}–{one.end:,}  {one.tensor.name}{held}  {one.tensor.dtype}"
        if one.is_unused:
            yield "    nobody used these bytes"
        for taken in one.taken:
            where = "which elements is not known" if taken.boxes is None else boxes_text(taken.boxes, taken.view.shape)
            yield f"    → {taken.view.name}{where if taken.boxes else f': {where}'}  rank {taken.view.rank}"
            yield f"      {write_text(report.session, taken.write)}"
