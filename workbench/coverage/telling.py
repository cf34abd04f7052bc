"""What `loadscope coverage` prints for a person: alike faults of layers and ranks once, with the elements and calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sessions.faults import Faults, Twice
from sessions.slots import Slot
from workbench.coverage.gathering import Left, Report
from workbench.coverage.wording import box_text, boxes_text, counted, write_text

CELLS = 24
MOST_GROUPS = 40
MOST_CALLS = 4
MOST_SLOTS = 12
MOST_TENSORS = 12

Group = list[Faults]


def told(report: Report, *, is_alone: bool = False) -> Iterator[str]:
    """The lines; with `is_alone` nothing is left out and nothing joined."""
    groups = [[one] for one in report.shown] if is_alone else _alike(report.shown)
    for group in groups if is_alone else groups[:MOST_GROUPS]:
        yield from _group(report, group)
    hidden = groups[MOST_GROUPS:] if not is_alone else []
    if hidden:
        count = sum(len(group) for group in hidden)
        yield f"and {count:,} more parameters with faults: narrow them with --parameter, or see all with --json"
        yield ""
    yield from _checkpoint(report)
    yield _summary(report)


def _alike(found: Sequence[Faults]) -> list[Group]:
    groups: dict[object, Group] = {}
    for one in found:
        pairs = tuple((pair.first.shard_id, pair.second.shard_id, pair.boxes) for pair in one.twice)
        wrong = tuple((w.kind, w.boxes) for w in one.misplaced)
        name = ".".join("*" if part.isdigit() else part for part in one.view.name.split("."))
        key = (name, one.view.shape, one.never, one.twice_boxes, pairs, wrong, one.unknown_because)
        groups.setdefault(key, []).append(one)
    return list(groups.values())


def _group(report: Report, group: Group) -> Iterator[str]:
    one, view = group[0], group[0].view
    ranks = [other.view.rank for other in group if other.view.name == view.name]
    names = list(dict.fromkeys(other.view.name for other in group))
    yield f"{view.name}  {view.dtype.removeprefix('torch.')} {list(view.shape)}  rank {counted(ranks)}"
    if len(names) > 1:
        yield f"  and alike in {len(names) - 1} more: {', '.join(names[1:4])}{' …' if len(names) > 4 else ''}"
    yield f"  {one.cells(CELLS)}  {_in_words(one)}"
    if one.never:
        yield f"  never written      {boxes_text(one.never, view.shape)}"
        if one.awaited:
            more = f" and {len(one.awaited) - 2:,} more" if len(one.awaited) > 2 else ""
            yield f"    nobody used      {', '.join(one.awaited[:2])}{more}"
    for pair in one.twice[:MOST_CALLS]:
        yield from _pair(report, one, pair)
    if len(one.twice) > MOST_CALLS:
        yield f"    and {len(one.twice) - MOST_CALLS:,} more pairs of calls"
    for wrong in one.misplaced[:MOST_CALLS]:
        is_of = "expected" if wrong.kind == "rank" else "the place of"
        yield f"  from elsewhere     {boxes_text(wrong.boxes, view.shape)}  {is_of} {wrong.wanted}"
        yield f"    filled by        {write_text(report.session, wrong.write)}"
    for one_suspicion in one.suspicions[:MOST_CALLS]:
        by = f" by {one_suspicion.operation}" if one_suspicion.operation else ""
        yield f"  not to be trusted  {one_suspicion.reason}{by}  {report.session.event(one_suspicion.at).ref}"
    yield from _slots(one)
    yield ""


def _in_words(one: Faults) -> str:
    coverage = one.view.coverage
    if one.unknown_because:
        return f"not known: {one.unknown_because}"
    never = "never written" if coverage.is_final else "not written when the recording ended"
    parts = [f"{coverage.never_written:,} {never}", f"{coverage.written_twice:,} written twice"]
    if one.misplaced:
        parts.append(f"{sum(wrong.elements for wrong in one.misplaced):,} from elsewhere")
    return f"of {coverage.elements:,} elements {', '.join(parts)}"


def _pair(report: Report, one: Faults, pair: Twice) -> Iterator[str]:
    yield f"  written twice      {boxes_text(pair.boxes, one.view.shape)}  {pair.elements:,} elements"
    yield f"    first            {write_text(report.session, pair.first)}"
    yield f"    then             {write_text(report.session, pair.second)}"


def _slots(one: Faults) -> Iterator[str]:
    """Only those with a fault where there are many, such as experts."""
    shape = one.view.shape or (1,)
    chosen = one.slots if len(one.slots) <= MOST_SLOTS else [slot for slot in one.slots if slot.never or slot.twice]
    width = max((len(slot.label) for slot in chosen[:MOST_SLOTS]), default=0)
    for slot in chosen[:MOST_SLOTS]:
        yield f"  slot {slot.label.ljust(width)}  {box_text(slot.box, shape)}  {_state(slot)}"
    if len(chosen) > MOST_SLOTS:
        yield f"  and {len(chosen) - MOST_SLOTS:,} more slots with faults"


def _state(slot: Slot) -> str:
    if slot.is_inferred:
        return "no call filled it"
    never = f"{slot.never:,} never written" if slot.never else ""
    twice = f"{slot.twice:,} written twice" if slot.twice else ""
    said = ", ".join(part for part in (never, twice) if part) or "once"
    return f"{said}  ← {', '.join(slot.tensors[:2])}{' …' if len(slot.tensors) > 2 else ''}"


def _checkpoint(report: Report) -> Iterator[str]:
    untouched = [one for one in report.left if one.is_untouched]
    partly = [one for one in report.left if not one.is_untouched]
    ranks = f" by the recorded ranks ({counted(report.ranks)} of {report.tp})" if len(report.ranks) < report.tp else ""
    if untouched:
        size = sum(one.consumption.size_bytes for one in untouched)
        yield f"tensors of the checkpoint that nobody used{ranks}: {len(untouched):,} of {size:,} bytes"
        for one in untouched[:MOST_TENSORS]:
            it = one.consumption
            read = "read" if it.is_read else "never read"
            yield f"  {it.name}  {it.dtype} {list(it.shape)}  {it.size_bytes:,} bytes, {read}{_in_file(one)}"
        yield from _more(untouched)
    if partly:
        yield f"tensors used in part{ranks}"
        for one in partly[:MOST_TENSORS]:
            yield from _partly(one)
        yield from _more(partly)


def _more(found: Sequence[Left]) -> Iterator[str]:
    if len(found) > MOST_TENSORS:
        yield f"  and {len(found) - MOST_TENSORS:,} more"
    yield ""


def _in_file(one: Left) -> str:
    return f"  {one.tensor.file} {one.tensor.begin:,}–{one.tensor.end:,}" if one.tensor is not None else ""


def _partly(one: Left) -> Iterator[str]:
    said, shape = one.consumption, one.tensor.shape if one.tensor is not None else one.consumption.shape
    if one.never is None:
        yield f"  {said.name}  {said.dtype} {list(said.shape)}  not known which elements: no plain copies"
        return
    left = said.never_consumed_bytes or 0
    yield f"  {said.name}  {said.dtype} {list(said.shape)}  {left:,} of {said.size_bytes:,} bytes left{_in_file(one)}"
    yield f"    nobody took      {boxes_text(one.never, shape)}"
    for rank, boxes in one.taken_by[:MOST_CALLS]:
        yield f"    rank {str(rank).ljust(11)} {boxes_text(boxes, shape)}"


def _summary(report: Report) -> str:
    return f"{report.whole:,} of {report.total:,} parameters were filled exactly once"
