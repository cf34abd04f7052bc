"""How a stream stores one kind: its table and columns, and how a row of it becomes a body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from inspectors.probe.events import KINDS, Body, field_specs
from sessions.event import NOTHING, UnknownBody
from sessions.texts import Texts

STORAGES = frozenset({"int", "real", "bool", "text", "json"})
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,), "real": (int, float), "bool": (int,), "text": (str,), "json": (tuple,),
}  # fmt: skip


def quoted(name: str) -> str:
    """A name from a file as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def table_of(kind: str) -> str:
    """The table of a kind, as the recorder makes it: "loader.called" is in body_loader_called."""
    return "body_" + "".join(c if c.isalnum() else "_" for c in kind)


@dataclass(frozen=True)
class Layout:
    """One kind of one stream: `columns` are (name, storage) as that stream declares them."""

    kind: str
    columns: tuple[tuple[str, str], ...]

    @property
    def table(self) -> str:
        """The quoted name of the kind's table."""
        return quoted(table_of(self.kind))

    @cached_property
    def body_class(self) -> type[Body] | None:
        """The class of a kind this version knows."""
        return KINDS.get(self.kind)

    @cached_property
    def selected(self) -> str:
        """The columns as SQL, after `b.seq`."""
        return "".join(f", b.{quoted(name)}" for name, _ in self.columns)

    @cached_property
    def text_places(self) -> tuple[int, ...]:
        """Where in `columns` a number of a text stands."""
        return tuple(n for n, (_, storage) in enumerate(self.columns) if storage in {"text", "json"})

    @cached_property
    def known(self) -> Mapping[str, str]:
        """The fields of the body class, with the storage this version expects."""
        return {s.name: s.storage for s in field_specs(self.body_class)} if self.body_class else {}

    def body(self, values: tuple[object, ...], texts: Texts) -> tuple[Body, Mapping[str, object]]:
        """The body of a row and the fields that this version does not know (or stores otherwise)."""
        facts: dict[str, object] = {}
        for (name, storage), raw in zip(self.columns, values, strict=True):
            if storage == "text":
                facts[name] = texts.text(raw)
            elif storage == "json":
                facts[name] = texts.value(raw)
            else:
                facts[name] = bool(raw) if storage == "bool" and raw is not None else raw
        cls = self.body_class
        if cls is None:
            return UnknownBody(facts=facts), NOTHING
        wrong = [n for n, v in facts.items() if n not in self.known or not isinstance(v, _TYPES[self.known[n]])]
        extra = {name: facts.pop(name) for name in wrong}
        return cls(**facts), extra or NOTHING


def layouts(declared: list[tuple[object, ...]]) -> dict[str, Layout]:
    """The kinds a stream declares, from its rows (kind, name, storage, position); what is malformed is left out."""
    columns: dict[str, dict[str, tuple[int, str, str]]] = {}
    for kind, name, storage, position in declared:
        if isinstance(kind, str) and isinstance(name, str) and storage in STORAGES and isinstance(position, int):
            columns.setdefault(kind, {}).setdefault(name, (position, name, str(storage)))
    return {kind: Layout(kind, tuple((n, s) for _, n, s in sorted(rows.values()))) for kind, rows in columns.items()}
