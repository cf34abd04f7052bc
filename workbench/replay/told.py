"""What came of a replay, as text and as the object of `--json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sessions.alignment import Alignment, FieldDifference, identity
from sessions.differing import Difference
from sessions.event import Event
from sessions.loaded import loaded
from sessions.rowtext import label_of
from sessions.session import Session
from workbench.errors import CLEAN, FINDINGS
from workbench.replay.again import printable

MOST_FIELDS = 12
MOST_KINDS = 6
MOST_IN_A_LINE = 80
INDENT = " " * 10


@dataclass(frozen=True)
class Side:
    """How the sides are called; of two recordings "first" and "second"."""

    first: str = "recorded"
    second: str = "replayed"
    in_first: str = "in the recording"
    in_second: str = "in the replay"


def exit_code(found: Alignment) -> int:
    """0 when nothing differs, else 1."""
    return CLEAN if found.is_alike else FINDINGS


def lines(found: Alignment, notes: list[str], side: Side) -> list[str]:
    """The report, for people: context first, then the verdict, then where to look."""
    told = loaded(found.first)
    out = [f"{side.first:<10}{' · '.join(printable(one) for one in (told.name, *told.facts) if one)}"]
    out += [f"{'note':<10}{printable(note)}" for note in notes]
    for n, one in enumerate(found.context):
        out.append(f"{'' if n else 'context':<10}{one.name}: {_value(one.first)} → {_value(one.second)}")
    beyond = f", {found.beyond:,} beyond the end of the one that was cut off" if found.beyond else ""
    out.append(f"{'alike':<10}{found.alike:,} events at level {found.level}{beyond}")
    out += _verdict(found, side)
    if found.outcome is not None:
        out.append(f"{'outcome':<10}{found.outcome.first} → {found.outcome.second}")
    return out


def _verdict(found: Alignment, side: Side) -> list[str]:
    if not found.differences:
        return [f"{'verdict':<10}{'no event differs' if found.outcome is None else 'no event differs, the end does'}"]
    first = found.differences[0]
    out = [f"{'verdict':<10}the first event that differs {_sorted(first, side)}"]
    out += _sides(found, first, side)
    fields = found.fields(first)
    for one in fields[:MOST_FIELDS]:
        out += _both(one, side)
    if len(fields) > MOST_FIELDS:
        out.append(f"{INDENT}  and {len(fields) - MOST_FIELDS} more fields")
    out += _around(found, first)
    rest = len(found.differences) - 1
    if rest:
        out.append(f"{'and':<10}{rest:,} more: {'; '.join(_counted(found))}")
    return out


def _sorted(one: Difference, side: Side) -> str:
    if one.sort == "changed":
        return "says something else"
    if one.sort == "moved":
        return "came in another order"
    return f"is only {side.in_first if one.sort == 'missing' else side.in_second}"


def _sides(found: Alignment, one: Difference, side: Side) -> list[str]:
    out = []
    for name, session, position in ((side.first, found.first, one.first), (side.second, found.second, one.second)):
        if position >= 0:
            out.append(f"{INDENT}{name:<10}{named(session.event(position))}")
    return out


def named(event: Event) -> str:
    """`#1,304 rank 1 loader.called model.layers.0.mlp.gate.weight`."""
    rank = f" rank {event.rank}" if event.rank >= 0 else ""
    about = identity(event) or label_of(event.kind, event.body, "", 1)
    ref = event.ref if event.stream else f"#{event.seq:,}"
    return printable(f"{ref}{rank} {event.kind} {about}".rstrip())


def _both(one: FieldDifference, side: Side) -> list[str]:
    """Both values in one line, where they are short enough to be compared in one."""
    first, second = _value(one.first), _value(one.second)
    if len(first) + len(second) <= MOST_IN_A_LINE:
        return [f"{INDENT}  {one.name}: {first} → {second}"]
    return [f"{INDENT}  {one.name}", f"{INDENT}    {side.first:<10}{first}", f"{INDENT}    {side.second:<10}{second}"]


def _value(value: object) -> str:
    return printable(value) if isinstance(value, str) and value else printable(repr(value))


def _around(found: Alignment, one: Difference) -> list[str]:
    """The last event that was alike, and the spans around the one that differs."""
    session, position = (found.first, one.first) if one.first >= 0 else (found.second, one.second)
    out = []
    if one.before[0] >= 0:
        out.append(f"{'after':<10}{named(found.first.event(one.before[0]))}")
    event: Event | None = session.parent(session.event(position))
    while event is not None:
        out.append(f"{'inside':<10}{named(event)}")
        event = session.parent(event)
    return out


def _counted(found: Alignment) -> list[str]:
    """`loader.called 3 changed, 2 missing`, the first difference not counted."""
    told = []
    first = found.differences[0]
    for kind, sorts in found.counts().items():
        left = {sort: n - (kind == first.kind and sort == first.sort) for sort, n in sorts.items()}
        text = ", ".join(f"{n:,} {sort}" for sort, n in left.items() if n)
        told += [f"{kind} {text}"] if text else []
    return told if len(told) <= MOST_KINDS else [*told[:MOST_KINDS], f"{len(told) - MOST_KINDS} more kinds"]


def as_json(found: Alignment, verb: str, notes: list[str], kept: Path | None) -> Mapping[str, object]:
    """The object of `--json`; `kept` is the folder of the second session, None when it was thrown away."""
    code = exit_code(found)
    return {
        "schema": 1,
        "verb": verb,
        "outcome": "findings" if code else "ok",
        "exit_code": code,
        "session": str(found.first.folder),
        "replay": str(kept) if kept is not None else None,
        "level": found.level,
        "notes": notes,
        "context": [_field_json(one) for one in found.context],
        "alike": found.alike,
        "beyond": found.beyond,
        "left_out": dict(found.left_out),
        "differing": found.counts(),
        "first_difference": _difference_json(found, found.differences[0]) if found.differences else None,
        "host": _field_json(found.outcome) if found.outcome is not None else None,
    }


def _difference_json(found: Alignment, one: Difference) -> Mapping[str, object]:
    return {
        "sort": one.sort,
        "kind": one.kind,
        "rank": one.rank,
        "recorded": _event_json(found.first, one.first),
        "replayed": _event_json(found.second, one.second),
        "before": _event_json(found.first, one.before[0]),
        "fields": [_field_json(field) for field in found.fields(one)],
    }


def _event_json(session: Session, position: int) -> Mapping[str, object] | None:
    if position < 0:
        return None
    event = session.event(position)
    return {"event": event.ref, "kind": event.kind, "rank": event.rank, "facts": vars(event.body)}


def _field_json(one: FieldDifference) -> Mapping[str, object]:
    return {"name": one.name, "recorded": one.first, "replayed": one.second}
