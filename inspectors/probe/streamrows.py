"""Events as rows: encoded when they are recorded, kept until the next commit, spans completed in place."""

from __future__ import annotations

import json
from collections.abc import Callable
from operator import itemgetter
from typing import Any

from inspectors.probe.events import Body, field_specs

Envelope = Any
"""seq, t_ns, dur_ns, kind, stage, parent, rank: a tuple, or a list as long as the span is open."""


def table_of(kind: str) -> str:
    """The quoted table name of a kind: `"loader.called"` → `"body_loader_called"`."""
    return '"body_' + "".join(c if c.isalnum() else "_" for c in kind) + '"'


class _TextIds(dict[str, int]):
    """Numbers for texts, in order of first use; `new` holds those not yet in the file."""

    def __init__(self) -> None:
        super().__init__()
        self.new: list[tuple[int, str]] = []

    def __missing__(self, text: str) -> int:
        number = self[text] = len(self) + 1
        self.new.append((number, text))
        return number


class _JsonIds(dict[object, int]):
    """Numbers for tuples by their JSON text; a tuple seen before costs one look-up."""

    def __init__(self, texts: _TextIds) -> None:
        super().__init__()
        self._texts = texts

    def __missing__(self, value: object) -> int:
        number = self[value] = self._texts[json.dumps(value, separators=(",", ":"))]
        return number


class _Encoder:
    """Turns bodies of one kind into rows of its table."""

    def __init__(self, kind: type[Body], texts: _TextIds, jsons: _JsonIds) -> None:
        specs = field_specs(kind)
        self._texts, self._jsons = texts, jsons
        self._text_places = tuple(n for n, s in enumerate(specs, 1) if s.storage == "text")
        self._json_places = tuple(n for n, s in enumerate(specs, 1) if s.storage == "json")
        names = [s.name for s in specs]
        self._values: Callable[[dict[str, Any]], Any] = (
            itemgetter(*names) if len(names) > 1 else lambda facts: tuple(facts[name] for name in names)
        )
        self.kind_text = texts[kind.kind]

    def row(self, seq: int, body: Body) -> tuple[Any, ...]:
        out = [seq, *self._values(body.__dict__)]
        texts, jsons = self._texts, self._jsons
        for place in self._text_places:
            out[place] = texts[out[place]]
        for place in self._json_places:
            value = out[place]
            out[place] = jsons[value if type(value) is tuple else _as_tuple(value)]
        return tuple(out)  # of numbers alone: Python's collector does not look at it again


class Batch:
    """What one commit writes: `ends` are (dur_ns, seq) of spans whose entry an earlier commit wrote."""

    __slots__ = ("ends", "envelope", "rows", "texts")

    def __init__(self) -> None:
        self.envelope: list[Envelope] = []
        self.rows: dict[type[Body], list[tuple[Any, ...]]] = {}
        self.ends: list[tuple[int, int]] = []
        self.texts: list[tuple[int, str]] = []

    def __bool__(self) -> bool:
        return bool(self.envelope or self.ends)


class OpenSpan:
    """A span that has begun: what its end changes, here or in the file."""

    __slots__ = ("batch", "body", "envelope", "rank", "row", "t_ns")

    def __init__(self, batch: Batch, envelope: Envelope, row: int, body: Body) -> None:
        self.batch, self.envelope, self.row, self.body = batch, envelope, row, body
        self.t_ns: int = envelope[1]
        self.rank: int = envelope[6]


class StreamRows:
    """The rows of one stream that no commit has taken yet; not thread-safe by itself, the recorder holds its lock."""

    def __init__(self) -> None:
        self._texts = _TextIds()
        self._jsons = _JsonIds(self._texts)
        self._encoders: dict[type[Body], _Encoder] = {}
        self.batch = Batch()

    def add(self, seq: int, t_ns: int, dur_ns: int, body: Body, stage: str, parent: int, rank: int) -> None:
        """An event that is over."""
        encoder, rows = self._place(type(body))
        rows.append(encoder.row(seq, body))
        self.batch.envelope.append((seq, t_ns, dur_ns, encoder.kind_text, self._texts[stage], parent, rank))

    def begin(self, seq: int, t_ns: int, body: Body, stage: str, parent: int, rank: int) -> OpenSpan:
        """An event that goes on."""
        encoder, rows = self._place(type(body))
        envelope = [seq, t_ns, None, encoder.kind_text, self._texts[stage], parent, rank]
        rows.append(encoder.row(seq, body))
        self.batch.envelope.append(envelope)
        return OpenSpan(self.batch, envelope, len(rows) - 1, body)

    def end(self, span: OpenSpan, dur_ns: int, body: Body | None) -> None:
        """The event is over; a `body` given replaces the facts of its beginning."""
        seq, is_here = span.envelope[0], span.batch is self.batch
        if is_here:
            span.envelope[2] = dur_ns
        else:
            self.batch.ends.append((dur_ns, seq))
        if body is not None:
            encoder, rows = self._place(type(body))
            if is_here:
                rows[span.row] = encoder.row(seq, body)
            else:
                rows.append(encoder.row(seq, body))

    def take(self) -> Batch:
        """Everything since the last time."""
        taken, self.batch = self.batch, Batch()
        taken.texts, self._texts.new = self._texts.new, []
        return taken

    def _place(self, kind: type[Body]) -> tuple[_Encoder, list[tuple[Any, ...]]]:
        encoder = self._encoders.get(kind)
        if encoder is None:
            encoder = self._encoders[kind] = _Encoder(kind, self._texts, self._jsons)
        rows = self.batch.rows.get(kind)
        if rows is None:
            rows = self.batch.rows[kind] = []
        return encoder, rows


def insert_into(kind: type[Body]) -> str:
    """The statement that writes a row of a kind, over an earlier one of the same event."""
    marks = ",".join("?" * (len(field_specs(kind)) + 1))
    return f"INSERT OR REPLACE INTO {table_of(kind.kind)} VALUES({marks})"


def _as_tuple(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, (list, set, frozenset)) else (str(value),)
