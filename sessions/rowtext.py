"""The words of timeline rows: full name, short label, shard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inspectors.probe.events import (
    Body,
    CheckpointOpened,
    EngineFound,
    ForwardRan,
    InspectorFaulted,
    KernelChosen,
    KernelLaunched,
    LoaderCalled,
    MethodSelected,
    ModelLoaded,
    ProcessStarted,
    RankJoined,
    RecordingCapped,
    ShardSplit,
    SkipDecided,
    StageFailed,
    TracepointMissing,
    WeightsMapped,
    WeightWritten,
)

_AXES = {0: "rows", 1: "columns"}


def name_of(body: Body) -> str:
    """The full name of what an event is about."""
    if isinstance(body, LoaderCalled) and ", " in body.checkpoint_name:
        return body.parameter  # made of several tensors
    for field in ("checkpoint_name", "parameter", "module", "name", "model_class"):
        value = getattr(body, field, "")
        if value:
            return str(value)
    return ""


def shard_of(body: Body) -> str:
    """What the caller asked to fill: the shard id and the expert, "" when there is neither."""
    if not isinstance(body, LoaderCalled):
        return ""
    shard = body.shard_id[1:-1] if body.shard_id[:1] == "'" else body.shard_id
    return ", ".join(part for part in (shard, str(body.expert_id) if body.expert_id >= 0 else "") if part)


def cut_text(dim: int, start: int, length: int, size: int) -> str:
    """A slice in words: "rows 192–383 of 768"."""
    axis = _AXES.get(dim, f"dim {dim}")
    of = f" of {size:,}" if size else ""
    if length == 1:
        return f"{axis.removesuffix('s') if dim in _AXES else axis} {start:,}{of}"
    return f"{axis} {start:,}–{start + length - 1:,}{of}" if length else f"{axis} none{of}"


def label_of(kind: str, body: Body, layer: str, count: int) -> str:
    """The short text of a row; `layer` is the layer row it stands under, whose name is left out."""
    if kind in _COUNTED:
        noun, participle = _COUNTED[kind]
        return f"{_several(count, noun)} {participle}"
    told = _TOLD.get(type(body))
    if told is not None:
        return told(body)
    name = name_of(body)
    short = name.removeprefix(f"{layer}.") if layer else name
    if isinstance(body, SkipDecided):
        return f"{short} {'skipped' if body.is_skipped else 'not skipped'}"
    if isinstance(body, MethodSelected):
        return f"{short} {body.method}"
    return short or kind


def _several(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


_COUNTED = {"tensor.listed": ("tensor", "listed"), "parameter.registered": ("parameter", "registered")}
_TOLD: dict[type[Body], Callable[[Any], str]] = {
    ShardSplit: lambda b: cut_text(b.dim, b.start, b.length, b.size),
    WeightWritten: lambda b: f"wrote {_several(b.elements, 'element')}",
    KernelChosen: lambda b: f"{b.op} {b.kernel or 'composed'}",
    KernelLaunched: lambda b: str(b.name),
    ProcessStarted: lambda b: f"process {b.pid} started",
    RankJoined: lambda b: f"one of {_several(b.tp, 'rank')}",
    EngineFound: lambda b: f"{b.engine} {b.version}".strip(),
    CheckpointOpened: lambda b: f"{_several(b.tensors, 'tensor')} in {_several(b.files, 'file')}",
    StageFailed: lambda b: f"{b.error.rpartition('.')[2]}: {b.message}".splitlines()[0],
    WeightsMapped: lambda b: f"{b.model_class}.load_weights",
    ForwardRan: lambda b: f"{b.phase or 'forward'} {_several(b.tokens, 'token')}",
    ModelLoaded: lambda b: f"{_several(b.parameters, 'parameter')} loaded",
    TracepointMissing: lambda b: f"not seen: {b.target}",
    InspectorFaulted: lambda b: f"inspector {b.inspector} ended: {b.error}",
    RecordingCapped: lambda b: f"limit reached: {b.limit} {b.value:,}",
}
