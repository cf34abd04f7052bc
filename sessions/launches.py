"""The launches of the forward passes, each moment in one of them: an operator with all that it launched inside."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from sessions.session import Session
from sessions.spans import last_moment
from sessions.stream import Stream

_FIELDS = ("name", "launcher", "module", "shapes", "outputs", "strides", "grid", "device_ns")
_HOLDERS = frozenset({"method"})
"""Launchers that only hold launches: a quantization method's `apply`."""


@dataclass(frozen=True, slots=True)
class Launch:
    """An operator or a kernel that is inside no other one, or the own time of a method that holds some.

    `ns` is the time on the host: of an accelerator's kernel that is its launch, and `device_ns` what the device took,
    its inner kernels together (-1 where nobody told). `shapes`, `outputs`, `strides` as in the event.
    """

    stream: int
    seq: int
    rank: int
    phase: str
    layer: str
    module: str
    name: str
    launcher: str
    shapes: tuple[str, ...]
    outputs: tuple[str, ...]
    strides: tuple[str, ...]
    ns: int
    device_ns: int


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward pass of one rank; `own_ns` is its time outside of all launches."""

    stream: int
    rank: int
    phase: str
    tokens: int
    ns: int
    own_ns: int


def launches(session: Session) -> tuple[Launch, ...]:
    """All launches, process after process, in order. Those of passes that never ended have the time they had got."""
    return session.kept("launches", lambda: tuple(one for s in session.streams for one in _Reading(s).launches()))


def passes(session: Session) -> tuple[Pass, ...]:
    """All forward passes, process after process."""
    return session.kept("passes", lambda: tuple(one for s in session.streams for one in _Reading(s).passes()))


class _Reading:
    """The launches of one process and how they nest."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        last_ns = last_moment(stream)
        self._rows: dict[int, tuple[Any, ...]] = {}
        self._inner: dict[int, list[int]] = defaultdict(list)
        for seq, start, dur, parent, rank, *facts in stream.columns("kernel.launched", _FIELDS, 1, stream.count):
            self._rows[seq] = (dur if dur is not None else max(0, last_ns - start), parent, rank, *facts)
            self._inner[parent].append(seq)
        self._passes = {
            seq: (dur if dur is not None else max(0, last_ns - start), rank, str(phase or ""), tokens or 0)
            for seq, start, dur, _, rank, phase, tokens in stream.columns(
                "forward.ran", ("phase", "tokens"), 1, stream.count
            )
        }

    def launches(self) -> list[Launch]:
        return [
            self._launch(seq)
            for seq, (_, parent, _, _, launcher, *_) in self._rows.items()
            if launcher in _HOLDERS or self._is_outermost(parent)
        ]

    def passes(self) -> list[Pass]:
        return [
            Pass(self._stream.number, rank, phase, tokens, ns, max(0, ns - self._inside_ns(seq)))
            for seq, (ns, rank, phase, tokens) in self._passes.items()
        ]

    def _is_outermost(self, parent: int) -> bool:
        while parent in self._rows:
            if self._rows[parent][4] not in _HOLDERS:
                return False
            parent = self._rows[parent][1]
        return True

    def _inside_ns(self, seq: int) -> int:
        return sum(self._rows[inner][0] for inner in self._inner[seq])

    def _device_ns(self, seq: int) -> int:
        told = [self._rows[seq][10], *(self._device_ns(inner) for inner in self._inner[seq])]
        known = [ns for ns in told if ns is not None and ns >= 0]
        return sum(known) if known else -1

    def _phase(self, parent: int) -> str:
        while parent in self._rows:
            parent = self._rows[parent][1]
        return self._passes[parent][2] if parent in self._passes else ""

    def _launch(self, seq: int) -> Launch:
        ns, parent, rank, name, launcher, module, shapes, outputs, strides, _, device_ns = self._rows[seq]
        is_holder = launcher in _HOLDERS
        return Launch(
            stream=self._stream.number,
            seq=seq,
            rank=rank,
            phase=self._phase(parent),
            layer=layer_of(module or ""),
            module=module or "",
            name=name or "",
            launcher=launcher or "",
            shapes=tuple(shapes or ()),
            outputs=tuple(outputs or ()),
            strides=tuple(strides or ()),
            ns=max(0, ns - self._inside_ns(seq)) if is_holder else ns,
            device_ns=(-1 if device_ns is None else device_ns) if is_holder else self._device_ns(seq),
        )


def layer_of(module: str) -> str:
    """`model.layers.3.mlp.gate` → `model.layers.3`; "" outside a numbered layer."""
    parts = module.split(".")
    numbered = next((n for n, part in enumerate(parts) if part.isdigit()), None)
    return ".".join(parts[: numbered + 1]) if numbered is not None else ""
