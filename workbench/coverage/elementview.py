"""One element: every write of it down to the bytes, the decision behind it, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from inspectors.probe.events import MethodSelected, SkipDecided, WeightRepacked
from sessions.checkpoint import tensor
from sessions.coverage import Box
from sessions.loaded import tp_of
from sessions.misplaced import Misplaced, misplaced_among
from sessions.parameters import parameter
from sessions.provenance import REMOVED, Element, Filled, Repack, Source, element, names_of_parameters, repacks_into
from sessions.session import Session
from workbench.coverage.asking import asked_element, named, placed
from workbench.coverage.numbers import Number, number
from workbench.coverage.sourcefile import Raw, raw_bytes
from workbench.coverage.wording import boxes_text, counted, outside, reference, write_json
from workbench.errors import UserError


@dataclass(frozen=True)
class Value:
    """What stands in the file for one element; `problem` says why it is not known."""

    raw: bytes = b""
    path: str = ""
    value: Number | None = None
    problem: str = ""


@dataclass(frozen=True)
class ElementReport:
    """An element with the bytes of each of its writes, in the same order; `ranks` have the parameter."""

    session: Session
    element: Element
    asked: tuple[int, ...]
    name: str
    values: tuple[Value, ...]
    misplaced: tuple[Misplaced, ...]
    ranks: tuple[int, ...]

    @property
    def dtype(self) -> str:
        """Of the element asked for: as post-processing left it, or as it was loaded."""
        told = self.element.repacks[-1].body.dtype if self.element.repacks else ""
        return (told or self.element.view.dtype).removeprefix("torch.")

    @property
    def is_clean(self) -> bool:
        """True when it was written once, or made by post-processing from something that was."""
        one = self.element
        if one.view.unknown_because or self.misplaced:
            return False
        return len(one.filled) == 1 or (not one.filled and bool(one.repacks))


def element_report(session: Session, text: str, rank: int | None, *, is_processed: bool = False) -> ElementReport:
    """Look an element up; `is_processed` counts in the parameter as post-processing left it.

    Raises UserError (exit 2) for names, indices and ranks that are not there.
    """
    asked = asked_element(text)
    loaded = {view.rank: view.shape for view in parameter(session, asked.name)}
    processed = {at: body.shape for _, at, body in repacks_into(session, asked.name)}
    if not loaded and not processed:
        named(asked.name, names_of_parameters(session), "parameter", "the session")
    if is_processed and not processed:
        what = f"{asked.name}: post-processing left it as it was loaded, or its work is not recorded"
        raise UserError(what, "ask without --processed for the element as it was loaded")
    if is_processed and all(body.source == REMOVED for _, _, body in repacks_into(session, asked.name)):
        raise UserError(
            f"{asked.name} was removed by post-processing", "ask without --processed for it as it was loaded"
        )
    is_processed = is_processed or not loaded
    shapes = processed if is_processed else loaded
    at = min(shapes) if rank is None else rank
    if at not in shapes:
        raise UserError(f"{asked.name} is not on rank {at}", f"ask for --rank {counted(shapes)}")
    index = placed(asked, shapes[at], text)
    found = element(session, asked.name, index, at, is_processed=is_processed)
    if found is None:
        raise UserError(f"{asked.name}: nothing is recorded of it as it was loaded", "record it with --level ledger")
    values = tuple(_value(session, one.source) for one in found.filled)
    misplaced = _misplaced(session, found)
    return ElementReport(session, found, index, asked.name, values, misplaced, tuple(sorted(shapes)))


def _misplaced(session: Session, one: Element) -> tuple[Misplaced, ...]:
    """Why the element's writes belong elsewhere; looked for among the ranks of its parameter alone."""
    views = parameter(session, one.view.name)
    wrong = misplaced_among(views, tp_of(session), lambda name: tensor(session, name))
    here = {filled.write.at for filled in one.filled}
    return tuple(found for found in wrong if found.rank == one.view.rank and found.write.at in here)


def _value(session: Session, source: Source) -> Value:
    if source.tensor is None or source.index is None:
        return Value(problem=source.said)
    raw: Raw = raw_bytes(session, source.tensor, source.begin, source.end)
    if raw.problem:
        return Value(path=raw.path, problem=raw.problem)
    dtype = "uint8" if source.tensor.is_packed else source.tensor.dtype
    return Value(raw.data, raw.path, number(raw.data, dtype, source.bit))


def element_json(report: ElementReport, verb: str, code: int) -> dict[str, object]:
    """The object of `--element … --json`."""
    one, session = report.element, report.session
    return {
        "schema": 1,
        "verb": verb,
        "outcome": "findings" if code else "ok",
        "exit_code": code,
        "session": str(session.folder),
        "parameter": report.name,
        "index": list(report.asked),
        "rank": one.view.rank,
        "ranks": list(report.ranks),
        "loaded_as": {"parameter": one.view.name, "index": list(one.index), "shape": list(one.view.shape)},
        "dtype": report.dtype,
        "is_processed": one.is_processed,
        "unknown_because": one.view.unknown_because or None,
        "writes": [_write_said(session, f, v) for f, v in zip(one.filled, report.values, strict=True)],
        "misplaced": [
            {"kind": wrong.kind, "wanted": wrong.wanted, "write": reference(session, wrong.write.at)}
            for wrong in report.misplaced
        ],
        "decision": _decision_said(one),
        "repacked_from": [_repack_said(session, repack) for repack in one.repacks],
        "became": [
            {"event": reference(session, n), "parameter": body.parameter, "shape": list(body.shape),
             "boxes": [list(box[0]) for box in boxes], "source": body.source or None}
            for n, body, boxes in one.became
        ],
    }  # fmt: skip


def _write_said(session: Session, filled: Filled, value: Value) -> dict[str, object]:
    source = filled.source
    return {
        **write_json(session, filled.write),
        "is_sure": filled.is_sure,
        "certainty": source.certainty,
        "said": source.said or None,
        "index": list(source.index) if source.index is not None else None,
        "file": source.tensor.file if source.tensor is not None else None,
        "dtype": source.tensor.dtype if source.tensor is not None else None,
        "begin": source.begin if source.begin >= 0 else None,
        "end": source.end if source.end >= 0 else None,
        "bit": source.bit,
        "path": value.path or None,
        "raw": value.raw.hex() or None,
        "value": value.value,
        "not_read": value.problem or None,
    }


def _decision_said(one: Element) -> list[dict[str, object]]:
    return [{"event": event.ref, "kind": event.kind, **vars(event.body)} for event in one.decision]


def _repack_said(session: Session, repack: Repack) -> dict[str, object]:
    return {
        "event": reference(session, repack.position),
        "from_parameter": repack.body.from_parameter or None,
        "index": list(repack.index) if repack.index is not None else None,
        "operation": repack.body.operation or None,
        "source": repack.body.source or None,
    }


def element_text(report: ElementReport) -> Iterator[str]:
    """The lines for a person."""
    one = report.element
    yield f"{report.name}{list(report.asked)}  {report.dtype}  rank {one.view.rank}"
    others = [rank for rank in report.ranks if rank != one.view.rank]
    if others:
        yield f"  also on rank {counted(others)}"
    yield from _repacks_told(report)
    if one.view.unknown_because:
        yield f"  {one.view.unknown_because}"
    if not one.filled and not one.repacks:
        yield "  never written"
    for number_, (filled, value) in enumerate(zip(one.filled, report.values, strict=True), 1):
        label = f"write {number_} of {len(one.filled)}" if len(one.filled) > 1 else "written once"
        yield from _write_told(report, label, filled, value)
    for wrong in report.misplaced:
        is_of = "expected" if wrong.kind == "rank" else "it lies in the place of"
        yield f"  from elsewhere: {is_of} {wrong.wanted}"
    yield from _decision_told(one)
    for position, body, boxes in one.became:
        yield f"  became     {_became(body, boxes)}  {reference(report.session, position)}"


def _became(body: WeightRepacked, boxes: Sequence[Box]) -> str:
    if body.source == REMOVED:
        return "nothing: post-processing removed the parameter"
    if boxes:
        return f"{body.parameter}{boxes_text(boxes, body.shape)}"
    return f"part of {body.parameter}: {body.source or 'unknown from here'}"


def _repacks_told(report: ElementReport) -> Iterator[str]:
    one = report.element
    for repack in one.repacks:
        ref, body = reference(report.session, repack.position), repack.body
        if repack.index is not None:
            yield f"  processed  {ref}: was {body.from_parameter}{list(repack.index)} as loaded"
        else:
            made = f"computed from {body.from_parameter}" if body.from_parameter else "unknown from here"
            yield f"  processed  {ref}: {made}{f' ({body.source})' if body.source else ''}"


def _write_told(report: ElementReport, label: str, filled: Filled, value: Value) -> Iterator[str]:
    write, call, source = filled.write, filled.call, filled.source
    sure = "" if filled.is_sure else ", or perhaps not: which elements it wrote is not known"
    shard = f" as {write.shard_id}" if write.shard_id else ""
    expert = f" of expert {write.expert_id}" if write.expert_id >= 0 else ""
    if call is not None:
        yield f"  {label}: {reference(report.session, write.position)}{shard}{expert} by {call.loader}{sure}"
        yield f"    at       {call.where}"
    else:
        yield f"  {label}: {outside(report.session, write)}{sure}"
    if source.tensor is None:
        yield f"    from     {source.said}"
        return
    at = f"{list(source.index)}" if source.index is not None else f", which element: {source.said}"
    kind = f"{source.tensor.dtype}{', a byte of a block' if source.tensor.is_packed else ''}"
    said = f"  ({source.said})" if source.said and source.index is not None else ""
    yield f"    from     {source.name}{at}  {kind}{said}"
    is_part = 0 < source.tensor.bits < 8 and source.index is not None
    bits = f", bit {source.bit}–{source.bit + source.tensor.bits - 1}" if is_part else ""
    yield f"    bytes    {source.tensor.file} {source.begin:,}–{source.end:,}{bits}"
    if value.problem:
        yield f"    raw      not read: {value.problem}" if source.index is not None else "    raw      not read"
    else:
        shown = "" if value.value is None else f" = {value.value!r}"
        yield f"    raw      {value.raw.hex(' ')}{shown}"


def _decision_told(one: Element) -> Iterator[str]:
    for event in one.decision:
        body = event.body
        if isinstance(body, SkipDecided):
            is_found = body.matched_entry >= 0
            entry = f"entry {body.matched_entry} of its list" if is_found else f"none of {len(body.ignored)} entries"
            yield f"  decision   {event.ref} {'left as it is' if body.is_skipped else 'quantized'}: {entry} matched"
        if isinstance(body, MethodSelected):
            yield f"  method     {event.ref} {body.method} for {body.module}"
