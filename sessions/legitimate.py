"""What two runs of one load may differ in without differing: the one table of what an alignment does not compare."""

from __future__ import annotations

import re
from collections.abc import Mapping

IGNORED_KINDS: Mapping[str, str] = {
    "memory.sampled": "memory in use is the machine's affair, and its clock decides how many samples there are",
    "stage.timed": "what a stage used of the machine is never the same twice",
}
"""Kinds that are left out, and why."""

IGNORED_FIELDS: Mapping[str, frozenset[str]] = {
    "process.started": frozenset({"pid", "parent_pid", "argv", "python", "level"}),
    "engine.found": frozenset({"version", "module_file"}),
    "checkpoint.opened": frozenset({"path"}),
    "kernel.launched": frozenset({"device_ns"}),
    "tensor.kept": frozenset({"file", "name"}),
    "stage.failed": frozenset({"call"}),
}
"""Fields by kind: process ids, times on a device, places of files, references to other events by number.

Versions of Python and of the engine are told before everything else (`Alignment.context`).
"""

CODE_PLACES = frozenset({"where", "frames", "rule"})
"""Fields of any kind that say a line of code: lines move from version to version while the load stays the same."""

ENVELOPE = ("position", "stream", "seq", "t_ns", "dur_ns", "parent")
"""What of the envelope is not compared; that a span was ended, and inside which kind of span it lies, is."""

TEXTS_WITH_PLACES: Mapping[str, frozenset[str]] = {
    "stage.failed": frozenset({"message"}),
    "inspector.faulted": frozenset({"error"}),
    "tracepoint.missing": frozenset({"reason"}),
    "kernel.launched": frozenset({"options"}),
    "loader.called": frozenset({"shard_id"}),
}
"""Fields of free text, in which addresses and the folders of session and checkpoint are replaced by a word."""

KEYS: Mapping[str, tuple[str, ...]] = {
    "process.started": (),
    "engine.found": ("engine",),
    "tracepoint.missing": ("engine", "target"),
    "inspector.faulted": ("inspector",),
    "recording.capped": ("limit",),
    "stage.failed": ("failed_stage", "module", "parameter"),
    "checkpoint.opened": (),
    "tensor.listed": ("checkpoint_name",),
    "tensor.read": ("checkpoint_name",),
    "skip.decided": ("module",),
    "method.selected": ("module",),
    "weights.created": ("module",),
    "parameter.registered": ("parameter",),
    "weights.mapped": (),
    "loader.called": ("parameter", "checkpoint_name", "expert_id"),
    "shard.split": ("parameter", "checkpoint_name"),
    "weight.written": ("parameter", "checkpoint_name"),
    "write.suspected": ("parameter",),
    "weight.repacked": ("parameter", "from_parameter"),
    "value.summarized": ("role", "module", "parameter"),
    "weights.processed": ("module",),
    "model.loaded": (),
    "kernel.chosen": ("module", "op"),
    "forward.ran": ("phase",),
    "kernel.launched": ("module", "name"),
    "tensor.kept": ("module", "role", "index", "forward"),
}
"""The fields that say which event it is; two events with the same key are one event, alike or changed."""

LEVELS = ("calls", "ledger", "values", "tensors")
DEEPER: Mapping[str, str] = {
    "weight.written": "ledger",
    "write.suspected": "ledger",
    "weight.repacked": "ledger",
    "value.summarized": "values",
    "tensor.kept": "tensors",
}
"""The level from which on a kind is recorded, where that is not the first one."""

_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{4,}\b")


def is_at_level(kind: str, level: str) -> bool:
    """True when a recording at `level` holds events of `kind`; an unknown level holds everything."""
    if level not in LEVELS:
        return True
    return LEVELS.index(DEEPER.get(kind, LEVELS[0])) <= LEVELS.index(level)


def compared(kind: str, fields: tuple[str, ...]) -> tuple[str, ...]:
    """Those of a kind's fields that are compared."""
    left_out = IGNORED_FIELDS.get(kind, frozenset()) | CODE_PLACES
    return tuple(name for name in fields if name not in left_out)


def comparable(kind: str, field: str, value: object, folders: Mapping[str, str]) -> object:
    """A value as it is compared: floats bit by bit, free text without addresses and without `folders` (path → word)."""
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, str) and field in TEXTS_WITH_PLACES.get(kind, ()):
        for folder, word in folders.items():
            value = value.replace(folder, word)
        return _ADDRESS.sub("ADDRESS", value)
    return value
