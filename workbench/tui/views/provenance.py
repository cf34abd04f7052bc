"""Which rows of the source a parameter took: rulers in disk order, and the way back to the byte in the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from rich.text import Text

from inspectors.probe.events import TensorListed
from sessions.ledger import Write
from sessions.parameters import ParameterView
from sessions.stored import stored_shape
from workbench.tui.marks import Taken, ruler
from workbench.tui.paint import Lines, cut, paint, said
from workbench.tui.views.view import blank
from workbench.tui.wording import bracketed, count, dtype, leaf, short_name, short_path

MOST_TENSORS = 3
MOST_RANKS = 8
MOST_WRITES = 8
Header = Mapping[str, TensorListed]


def provenance(views: Sequence[ParameterView], header: Header, width: int) -> Lines:
    """Rulers of the checkpoint tensors, one line a rank, then rank rows beside checkpoint rows and file offsets."""
    lines: Lines = []
    names = list(dict.fromkeys(write.checkpoint_name for view in views for write in view.writes))
    for name in names[:MOST_TENSORS]:
        lines += _tensor(name, views, header.get(name), width)
    if len(names) > MOST_TENSORS:
        lines.append(said(f"and {len(names) - MOST_TENSORS} more tensors", "m"))
    if lines:
        lines += _table(views[0], header, width)
    elif views[0].calls:
        lines = [blank(), said("which rows is recorded at level ledger", "m")]
    return [*lines, blank(), *_loader(views[0], width)]


def _loader(view: ParameterView, width: int) -> Lines:
    lines = [paint("{m|by}     $", cut(said(short_name(view.loader) or "default loader"), width - 7))]
    return [*lines, paint("{m|       $}", short_path(view.where))] if view.where else lines


def _tensor(name: str, views: Sequence[ParameterView], listed: TensorListed | None, width: int) -> Lines:
    shape = stored_shape(listed)
    if listed is None or not shape:
        return [blank(), paint("{f|from}   $", cut(said(name), width - 7))]
    writes = [write for view in views for write in view.writes if write.checkpoint_name == name]
    dim = _cut_dim(writes, shape)
    last = "columns" if shape == listed.shape else "bytes of a row"
    axis = "rows" if dim == 0 else last if dim == 1 else f"dimension {dim}"
    lines = [blank(), paint("{f|from}   $", cut(said(leaf(name, 2)[1]), width - 7))]
    lines.append(paint("{m|       $ $ · $ 0–$}", dtype(listed.dtype), bracketed(listed.shape), axis, shape[dim] - 1))
    for view in views[:MOST_RANKS]:
        taken = _taken(view.writes, name, shape, dim)
        lines.append(paint("{m|$}$", f"rank {view.rank}".ljust(7), ruler(min(32, width - 8), taken)))
    return lines


def _cut_dim(writes: Sequence[Write], shape: Sequence[int]) -> int:
    """The dimension along which the tensor was cut; 0 when it was taken whole."""
    for write in writes:
        for dim, length in enumerate(write.source_length):
            if dim < len(shape) and length != shape[dim]:
                return dim
    return 0


def _taken(writes: Sequence[Write], name: str, shape: Sequence[int], dim: int) -> list[Taken]:
    whole = max(1, shape[dim])
    return [
        Taken(write.source_start[dim] / whole, (write.source_start[dim] + write.source_length[dim]) / whole)
        for write in writes
        if write.checkpoint_name == name and dim < len(write.source_start)
    ]


def _table(view: ParameterView, header: Header, width: int) -> Lines:
    lines = [blank(), said("this rank      checkpoint        file offset", "f")]
    for write in view.writes[:MOST_WRITES]:
        dim = _cut_dim([write], stored_shape(header.get(write.checkpoint_name)))
        into = _range(write.start, write.length, dim)
        if not write.source_start:
            lines.append(cut(paint("$  {m|$}", into.rjust(11), write.source or "not a plain box"), width))
            continue
        taken = _range(write.source_start, write.source_length, dim)
        offset = _offset(write, header.get(write.checkpoint_name))
        lines.append(paint("$    $  {m|$}", into.rjust(11), taken.rjust(13), offset.rjust(14)))
    if len(view.writes) > MOST_WRITES:
        lines.append(said(f"and {len(view.writes) - MOST_WRITES} more writes", "m"))
    return lines


def _range(start: Sequence[int], length: Sequence[int], dim: int) -> str:
    if dim >= len(start):
        return "all"
    return f"{start[dim]} – {start[dim] + length[dim] - 1}" if length[dim] != 1 else str(start[dim])


def _offset(write: Write, listed: TensorListed | None) -> str:
    """Where the first element of a write stands in its file, as bytes from the file's start."""
    shape = stored_shape(listed)
    if listed is None or not prod(shape):
        return ""
    item = (listed.end - listed.begin) // prod(shape)
    strides = [prod(shape[dim + 1 :]) for dim in range(len(shape))]
    elements = sum(at * stride for at, stride in zip(write.source_start, strides, strict=False))
    return f"+{count(listed.begin + elements * item)}"


def writers(views: Sequence[ParameterView], header: Header, width: int) -> Lines:
    """Every call that wrote a parameter, in order: event, source, destination, and the way to the file."""
    lines: Lines = []
    for view in views:
        lines += [paint("{f|rank $}  {m|$  $}", view.rank, view.loader or "default loader", view.where)]
        if not view.writes:
            calls = ", ".join(f"#{position + 1:,}" for position in view.calls)
            lines.append(said(f"  calls {calls}" if calls else "  no call", "m"))
        for write in view.writes:
            lines += _writer(write, header.get(write.checkpoint_name), width)
        lines.append(blank())
    return lines


def _writer(write: Write, listed: TensorListed | None, width: int) -> Lines:
    lead = paint("  {a|$}  $", f"#{write.position + 1:,}".ljust(7), write.checkpoint_name)
    source = (
        f"{bracketed(write.source_start)} + {bracketed(write.source_length)}" if write.source_start else write.source
    )
    into = f"{bracketed(write.start)} + {bracketed(write.length)}"
    shard = write.shard_id or "none"
    where = f"{listed.file} {_offset(write, listed)}" if listed is not None and write.source_start else ""
    facts = paint("           {m|from} $  {m|into} $  {m|shard_id} $", source, into, shard)
    lines: list[Text] = [cut(lead, width), cut(facts, width)]
    return [*lines, cut(paint("           {m|$}", where), width)] if where else lines
