"""One event explained: the detail pane for each kind, and the page with everything that was recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from rich.text import Text

from inspectors.probe.events import (
    CheckpointOpened,
    KernelChosen,
    KernelLaunched,
    LoaderCalled,
    ShardSplit,
    SkipDecided,
    StageFailed,
    TensorListed,
    TensorRead,
    ValueSummarized,
    WeightWritten,
)
from sessions.checkpoint import header
from sessions.event import Event, UnknownBody
from sessions.numerics import WHEN
from sessions.rowtext import label_of
from workbench.tui.keymap import Hint, hint
from workbench.tui.marks import Taken, ruler
from workbench.tui.paint import Lines, cut, padded, paint, said, wrapped
from workbench.tui.views.launch import launch_facts
from workbench.tui.views.numbers import statistics
from workbench.tui.views.view import Reading, blank, fact, head
from workbench.tui.wording import bracketed, duration, leaf, milliseconds, short_name, short_path, size
from workbench.tui.wording import dtype as short_dtype

MOST_COUNTED = 200
Explain = Callable[[Reading, Event, int], Lines]


def leads(event: Event) -> tuple[Hint, ...]:
    """The keys that lead on from an event."""
    return _LEADS.get(type(event.body), (hint("inspect", "all facts"),))


def explained(reading: Reading, event: Event, width: int) -> Lines:
    """The detail of one event, by its kind; a kind without a picture of its own lists its fields."""
    explain: Explain = _EXPLAIN.get(type(event.body), _plain)
    return explain(reading, event, width)


def counted(events: Sequence[Event], title: str, width: int) -> Lines:
    """Neighbours of one kind that are one row: what there is, and the first of them."""
    alike = [event for event in events if event.kind == events[0].kind]
    lines = [said(alike[0].stage, "f"), *wrapped(title, width, "b"), blank()]
    for event in alike[:MOST_COUNTED]:
        body: Any = event.body
        name = body.checkpoint_name if isinstance(body, TensorListed) else body.parameter
        facts = f"{short_dtype(body.dtype)} {bracketed(body.shape)}"
        room = width - len(facts) - 1
        lines.append(paint("$ {m|$}", padded(cut(said(name), room, keeps_end=True), room), facts))
    more = len(alike) - MOST_COUNTED
    return [*lines, *([said(f"and {more:,} more", "m")] if more > 0 else [])]


def _call(reading: Reading, event: Event, width: int) -> Lines:
    body: Any = event.body
    front, end = leaf(body.parameter, 2)
    kind = "weight.load" + (" · about to return" if event.is_open else "")
    if body.outcome == "raised":
        kind += " · raised"
    lines = head(kind, end, front, width)
    listed = header(reading.session).get(body.checkpoint_name)
    lines += [
        blank(),
        _sized("from", f"{_bare(body.tensor_dtype)} {bracketed(body.tensor_shape)}", body.tensor_bytes, width),
    ]
    lines.append(paint("       {m|$}", cut(said(body.checkpoint_name, "m"), width - 7, keeps_end=True)))
    if listed is not None:
        lines.append(paint("       {m|$ +$}", listed.file.removesuffix(".safetensors"), f"{listed.begin:,}"))
    lines.append(fact("into", f"{_bare(body.parameter_dtype)} {bracketed(body.parameter_shape)}"))
    lines.append(paint("       {m|$ · rank $ of $}", body.parameter_class, event.rank, _tp(reading)))
    expert = f" · expert {body.expert_id}" if body.expert_id >= 0 else ""
    lines.append(paint("       {m|shard_id $$}", body.shard_id or "none", expert))
    lines += _by(body.loader, body.where, width)
    lines += _inside(reading, event, body, width)
    return lines


def _inside(reading: Reading, event: Event, body: LoaderCalled, width: int) -> Lines:
    """The source ruler: what the splits and writes of this call took."""
    children = reading.session.children(event)
    splits = [one.body for one in children if isinstance(one.body, ShardSplit)]
    writes = [one.body for one in children if isinstance(one.body, WeightWritten)]
    lines: Lines = []
    if writes or splits:
        lines += [blank(), *_rulers(writes, splits, body, width)]
    for one in children:
        if isinstance(one.body, ValueSummarized):
            lines += [blank(), said("value after the call", "f"), *statistics(one.body)]
    return lines


def _rulers(writes: list[WeightWritten], splits: list[ShardSplit], body: LoaderCalled, width: int) -> Lines:
    room = min(32, width - 9)
    boxes = [one for one in writes if one.source_start]
    if boxes and body.tensor_shape:
        dim = next((d for one in boxes for d, n in enumerate(one.source_length) if n != body.tensor_shape[d]), 0)
        whole = max(1, body.tensor_shape[dim])
        taken = [
            Taken(o.source_start[dim] / whole, (o.source_start[dim] + o.source_length[dim]) / whole) for o in boxes
        ]
        axis = "rows" if dim == 0 else "columns"
        lines = [paint("{f|source $ 0 – $}", axis, whole - 1), paint("{m|taken}    $", ruler(room, taken))]
        ranges = ", ".join(_range(one.source_start[dim], one.source_length[dim]) for one in boxes[:4])
        return [*lines, cut(paint("         {m|$}", ranges), width)]
    lines = [said("splits", "f")] if splits else []
    for one in splits:
        told = f"{one.operation} dim {one.dim}: {one.start}–{one.start + one.length - 1} of {one.size}"
        lines.append(cut(said(told, "m"), width))
    others = [one for one in writes if not one.source_start]
    lines += [
        cut(paint("{m|written}  $ $", f"{one.elements:,}", one.source or "elements"), width) for one in others[:4]
    ]
    return lines


def _range(start: int, length: int) -> str:
    return f"{start}–{start + length - 1}" if length != 1 else str(start)


def _split(reading: Reading, event: Event, width: int) -> Lines:
    body: Any = event.body
    front, end = leaf(body.parameter, 2)
    lines = head(f"shard.split · {body.operation}", end, front, width)
    whole = max(1, body.size)
    taken = [Taken(body.start / whole, (body.start + body.length) / whole)]
    lines += [blank(), fact("from", cut(said(body.checkpoint_name), width - 7, keeps_end=True)), fact("dim", body.dim)]
    lines.append(paint("{m|takes}  $ – $ {m|of $}", body.start, body.start + body.length - 1, f"{body.size:,}"))
    lines.append(paint("       $", ruler(min(32, width - 8), taken)))
    lines.append(fact("rank", f"{event.rank} of {_tp(reading)}"))
    around = reading.session.parent(event)
    lines += [fact("inside", reading.event(around.position) + f" {around.kind}")] if around is not None else []
    return lines


def _failed(reading: Reading, event: Event, width: int) -> Lines:
    body: Any = event.body
    stage = body.failed_stage or "the host"
    rank = f" · rank {event.rank}" if event.rank >= 0 else ""
    lines = [cut(paint("{E|✗ $} {m|in $$}", leaf(body.error)[1] or "exception", stage, rank), width)]
    name = body.parameter or body.module
    if name:
        front, end = leaf(name, 2 if body.parameter else 1)
        lines += [*wrapped(end, width, "b"), *([said(front, "m")] if front else [])]
    lines += [blank(), *wrapped(body.message or "no message", width)]
    if body.checkpoint_name:
        lines += [blank(), fact("from", cut(said(body.checkpoint_name), width - 7, keeps_end=True))]
    call = reading.session.position(event.stream, body.call) if body.call else -1
    if call >= 0:
        around = reading.session.event(call)
        lines += [blank(), *_around(reading, around, width)]
    lines += _follows_from(reading, event, width)
    lines += [blank(), paint("{f|frames}  {k|u} {m|up}")]
    for number, frame in enumerate(body.frames[:6]):
        lines.append(cut(paint("{f|$} {m|$}", "▸" if not number else " ", short_path(frame)), width))
    return lines


def _around(reading: Reading, event: Event, width: int) -> Lines:
    body = event.body
    if isinstance(body, LoaderCalled):
        shapes = f"{_bare(body.tensor_dtype)} {bracketed(body.tensor_shape)}"
        into = f"{_bare(body.parameter_dtype)} {bracketed(body.parameter_shape)}"
        return [
            fact("from", shapes),
            fact("into", into),
            fact("shard", body.shard_id or "none"),
            *_by(body.loader, body.where, width),
        ]
    told = [(field.name, getattr(body, field.name)) for field in fields(body)]
    names = {"input_size_per_partition": "input", "output_partition_sizes": "output", "params_dtype": "dtype"}
    lines = [fact("span", f"{reading.event(event.position)} {event.kind}")]
    for name, given in told:
        if given not in ("", (), 0, -1, None) and name != "module":
            shown = bracketed(given) if isinstance(given, tuple) else short_path(str(given))
            lines.append(cut(fact(names.get(name, name), shown, indent=max(7, len(names.get(name, name)) + 1)), width))
    return lines


def _follows_from(reading: Reading, event: Event, width: int) -> Lines:
    """The findings that this failure is evidence of, the root cause first."""
    found = [one for one in reading.snapshot.findings if any(e.position == event.position for e in one.evidence)]
    if not found:
        return []
    roots = [one for one in found if one.root] or found
    lines = [blank(), said("try", "f")]
    lines += wrapped(roots[0].remedy or roots[0].sentence, width)
    return [*lines, *(cut(paint("{k|f} {m|finding} {e|$} {m|$}", one.id, one.title), width) for one in roots[:2])]


def _opened(reading: Reading, event: Event, width: int) -> Lines:
    body: Any = event.body
    lines = head("checkpoint.open", leaf(body.path.replace("/", "."))[1] or body.path, body.path, width)
    lines += [blank(), fact("model", body.architecture), fact("format", body.quant_method or "not quantized")]
    lines += [
        fact("layers", body.layers),
        fact("files", f"{body.files:,}"),
        fact("tensors", f"{body.tensors:,}", indent=8),
    ]
    return [*lines, fact("bytes", size(body.size_bytes))]


def _tensor(reading: Reading, event: Event, width: int) -> Lines:
    body: Any = event.body
    front, end = leaf(body.checkpoint_name, 2)
    lines = head(event.kind, end, front, width)
    lines += [blank(), fact("holds", f"{_bare(body.dtype)} {bracketed(body.shape)}")]
    if isinstance(body, TensorListed):
        lines += [fact("file", cut(said(body.file), width - 7)), fact("bytes", f"{body.begin:,} – {body.end:,}")]
        return [*lines, fact("size", size(body.end - body.begin))]
    lines += [fact("bytes", size(body.size_bytes)), fact("took", f"{milliseconds(event.dur_ns)} ms")]
    if event.dur_ns:
        lines.append(fact("rate", f"{body.size_bytes / event.dur_ns:.2f} GB/s"))
    return lines


def _skip(reading: Reading, event: Event, width: int) -> Lines:
    body: Any = event.body
    front, end = leaf(body.module)
    lines = head("decision · is it skipped?", end, front, width)
    told = f"entry {body.matched_entry}" if body.matched_entry >= 0 else f"0 of {len(body.ignored)} matched"
    lines += [
        paint("{m|$, $}", "stays as it is" if body.is_skipped else "quantized", told),
        blank(),
        said("looked for", "f"),
    ]
    lines += [cut(said(name), width) for name in body.tried]
    lines += [blank(), fact("parts", f"from {body.expansion_source}" if body.expansion_source else "none", indent=7)]
    lines += _by(body.rule, body.where, width)
    return lines


def _launch(reading: Reading, event: Event, width: int) -> Lines:
    body: Any = event.body
    lines = head(f"kernel.launch · {body.launcher}", body.name, body.module, width)
    lines += [blank(), *(fact("in" if not n else "", cut(said(s), width - 7)) for n, s in enumerate(body.shapes[:6]))]
    lines += [fact("out" if not n else "", cut(said(s), width - 7)) for n, s in enumerate(body.outputs[:6])]
    if body.grid:
        lines.append(fact("grid", " × ".join(f"{one:,}" for one in body.grid)))
    lines += launch_facts(body, width)
    took = duration(event.dur_ns) if event.dur_ns is not None else "…"
    return [*lines, fact("took", took)]


def _values(reading: Reading, event: Event, width: int) -> Lines:
    body: Any = event.body
    front, end = leaf(body.parameter or body.module or "the model", 2)
    lines = head(f"{body.role} · {WHEN.get(event.stage, event.stage)}", end, front, width)
    lines += [blank(), fact("holds", f"{_bare(body.dtype)} {bracketed(body.shape)}"), *statistics(body)]
    around = reading.session.parent(event)
    inside = f"{reading.event(around.position)} {around.kind}" if around is not None else ""
    return [*lines, *([fact("inside", inside)] if inside else [])]


def _chosen(reading: Reading, event: Event, width: int) -> Lines:
    body: Any = event.body
    lines = head("kernel.select", body.op, body.module, width)
    lines += [blank(), fact("runs", body.kernel or "composed of other kernels", "b"), blank()]
    lines += [said("why no other", "f")] if body.refused else []
    lines += [piece for one in body.refused for piece in wrapped(one, width, "m")]
    return [*lines, *([blank(), paint("{m|by}     $", short_path(body.where))] if body.where else [])]


def _plain(reading: Reading, event: Event, width: int) -> Lines:
    name = getattr(event.body, "parameter", "") or getattr(event.body, "module", "")
    front, end = leaf(str(name), 2)
    lines = head(event.stage or event.kind, end or label_of(event.kind, event.body, "", 1), front, width)
    lines += [blank(), *_fields(event, width, {"parameter", "module"})]
    if event.dur_ns:
        lines.append(fact("took", duration(event.dur_ns)))
    return lines


def _fields(event: Event, width: int, left_out: set[str]) -> Lines:
    lines: Lines = []
    facts = event.body.facts if isinstance(event.body, UnknownBody) else vars(event.body)
    for name, given in [*facts.items(), *event.extra.items()]:
        if name in left_out:
            continue
        if isinstance(given, tuple) and given and isinstance(given[0], str):
            lines.append(paint("{m|$}  {f|$}", name, f"{len(given)}"))
            lines += [piece for one in given for piece in wrapped(str(one), width, "t", "  ")]
        else:
            shown = bracketed(given) if isinstance(given, tuple) else given
            first, *rest = wrapped(str(shown), max(12, width - len(name) - 2)) or [blank()]
            lines.append(paint("{m|$}  $", name, first))
            lines += [Text.assemble("  ", one, no_wrap=True, end="") for one in rest]
    return lines


def everything(reading: Reading, event: Event, width: int) -> Lines:
    """The envelope, every field, and what lies inside and around: nothing that was recorded is left out."""
    lines = [paint("{f|everything recorded about} {b|$}", reading.event(event.position)), blank()]
    ended = "still open" if event.is_open else f"{event.dur_ns:,} ns"
    envelope = (
        ("kind", event.kind),
        ("stage", event.stage),
        ("stream", event.stream),
        ("seq", event.seq),
        ("rank", event.rank),
        ("parent", event.parent),
        ("t_ns", f"{event.t_ns:,}"),
        ("took", ended),
    )
    lines += [fact(name, given, indent=8) for name, given in envelope]
    lines += [blank(), *_fields(event, width, set())]
    children = reading.session.children(event)
    if children:
        lines += [blank(), said(f"inside  {len(children)} events", "f")]
    for one in children[:200]:
        lines.append(cut(paint("{a|$}  {m|$}  $", reading.event(one.position), one.kind, _short(one)), width))
    return lines


def _short(event: Event) -> str:
    body = event.body
    if isinstance(body, ShardSplit):
        return f"{body.operation} dim {body.dim} {body.start}–{body.start + body.length - 1} of {body.size}"
    if isinstance(body, WeightWritten):
        return f"{body.elements:,} elements at {bracketed(body.start)} {body.source}"
    for name in ("checkpoint_name", "parameter", "module", "name"):
        if given := getattr(body, name, ""):
            return str(given)
    return ""


def _sized(label: str, text: str, bytes_: int, width: int) -> Text:
    left = fact(label, text)
    right = said(size(bytes_), "m")
    return Text.assemble(left, " " * max(1, width - 2 - left.cell_len - right.cell_len), right, no_wrap=True, end="")


def _by(loader: str, where: str, width: int) -> Lines:
    lines = [fact("by", cut(said(short_name(loader) or "unknown"), width - 7))]
    return [*lines, paint("       {m|$}", short_path(where))] if where else lines


def _bare(name: str) -> str:
    return name.removeprefix("torch.")


def _tp(reading: Reading) -> int:
    return reading.snapshot.loaded.tp or 1


_LEADS: dict[type, tuple[Hint, ...]] = {
    LoaderCalled: (hint("follow", "parameter"), hint("inspect", "all facts")),
    ShardSplit: (hint("step.frame_up", "the call around"), hint("follow", "parameter")),
    SkipDecided: (hint("follow", "the decision"), hint("inspect", "all facts")),
    KernelLaunched: (hint("follow", "kernel"), hint("inspect", "all facts")),
    StageFailed: (hint("follow", "findings"), hint("inspect", "all facts")),
}
_EXPLAIN: dict[type, Explain] = {
    LoaderCalled: _call,
    ShardSplit: _split,
    StageFailed: _failed,
    CheckpointOpened: _opened,
    TensorListed: _tensor,
    TensorRead: _tensor,
    SkipDecided: _skip,
    KernelLaunched: _launch,
    KernelChosen: _chosen,
    ValueSummarized: _values,
}
