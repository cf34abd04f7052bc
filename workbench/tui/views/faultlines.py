"""The detail of a parameter that was not filled as it should: elements, both calls of a double write, slots."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from sessions.coverage import Box
from sessions.faults import Faults
from sessions.ledger import Write
from sessions.slots import Slot
from workbench.coverage.wording import box_text, boxes_text
from workbench.tui.marks import coverage
from workbench.tui.paint import Lines, cut, paint, said
from workbench.tui.views.view import Reading, blank
from workbench.tui.wording import leaf

MOST_PAIRS = 3
MOST_PLACES = 3
MOST_SLOTS = 8
MOST_NUMBERS = 9


def numbered_calls(fault: Faults) -> tuple[int, ...]:
    """The calls at fault in the order in which the detail numbers them: both of each double write, then the others."""
    writes = [write for pair in fault.twice[:MOST_PAIRS] for write in (pair.first, pair.second)]
    writes += [wrong.write for wrong in fault.misplaced[:MOST_PLACES]]
    places = [write.position if write.position >= 0 else write.at for write in writes]
    return tuple(dict.fromkeys(places))[:MOST_NUMBERS]


def fault_lines(reading: Reading, fault: Faults | None, ranks: str, width: int) -> Lines:
    """What was never written, twice and from elsewhere, and the slots; [] for a parameter that is whole.

    `ranks` says on which ranks it is so, "" where there is one only.
    """
    if fault is None or not fault.view.is_final:
        return []
    found = [*_never(fault), *_twice(reading, fault), *_elsewhere(reading, fault)]
    lines = [blank(), said(f"at fault · {ranks}", "f"), *found[1:]] if found and ranks else found
    return [cut(line, width) for line in (*lines, *_slots(fault))]


def _boxes(boxes: tuple[Box, ...], fault: Faults) -> str:
    return boxes_text(boxes, fault.view.shape or (1,), 2)


def _never(fault: Faults) -> Iterator[Text]:
    if fault.never:
        yield blank()
        yield paint("{e|never}  $", _boxes(fault.never, fault))
        for name in fault.awaited[:2]:
            yield paint("       {m|nobody used} $", leaf(name, 2)[1])


def _twice(reading: Reading, fault: Faults) -> Iterator[Text]:
    for pair in fault.twice[:MOST_PAIRS]:
        yield blank()
        yield paint("{w|twice}  $", _boxes(pair.boxes, fault))
        yield _call(reading, fault, pair.first)
        yield _call(reading, fault, pair.second)
    if len(fault.twice) > MOST_PAIRS:
        yield said(f"       and {len(fault.twice) - MOST_PAIRS:,} more pairs of calls", "m")


def _elsewhere(reading: Reading, fault: Faults) -> Iterator[Text]:
    for wrong in fault.misplaced[:MOST_PLACES]:
        yield blank()
        yield paint("{w|elsewhere}  $", _boxes(wrong.boxes, fault))
        yield paint("       {m|$} $", "expected" if wrong.kind == "rank" else "the place of", wrong.wanted)
        yield _call(reading, fault, wrong.write)


def _call(reading: Reading, fault: Faults, write: Write) -> Text:
    place = write.position if write.position >= 0 else write.at
    calls = numbered_calls(fault)
    number = str(calls.index(place) + 1) if place in calls else " "
    shard = f" as {write.shard_id}" if write.shard_id else ""
    expert = f" of expert {write.expert_id}" if write.expert_id >= 0 else ""
    name = leaf(write.checkpoint_name, 2)[1] or write.operation
    return paint("     {k|$} {a|$} ${m|$}", number, reading.event(place), name, f"{shard}{expert}")


def _slots(fault: Faults) -> Iterator[Text]:
    """All of them where they are few, else those with a fault."""
    chosen = fault.slots if len(fault.slots) <= MOST_SLOTS else [s for s in fault.slots if s.never or s.twice]
    if chosen:
        yield blank()
        yield said("slots", "f")
    width = max((len(slot.label) for slot in chosen[:MOST_SLOTS]), default=0)
    for slot in chosen[:MOST_SLOTS]:
        source = leaf(slot.tensors[0], 2)[1] if slot.tensors else "no call"
        where = box_text(slot.box, fault.view.shape or (1,))
        yield paint("  $ $  $ {m|$}", slot.label.ljust(width), coverage(_state(slot, fault) * 3), where, source)
    if len(chosen) > MOST_SLOTS:
        yield said(f"  and {len(chosen) - MOST_SLOTS:,} more slots with gaps", "m")


def _state(slot: Slot, fault: Faults) -> str:
    """The cell of a slot: the worst of its elements."""
    if slot.never:
        return "0"
    is_elsewhere = any(
        (one.write.shard_id, one.write.expert_id) == (slot.shard_id, slot.expert_id) for one in fault.misplaced
    )
    return "!" if is_elsewhere else "2" if slot.twice else "1"
