"""The interned texts of one stream, fetched in batches when first needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Rows = Callable[[str, tuple[object, ...]], list[tuple[object, ...]]]

_BATCH = 500
_KEPT = 1_000_000


class Texts:
    """Number → text, and number → value for JSON texts; `unreadable` counts what was neither."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._texts: dict[int, str] = {}
        self._values: dict[int, object] = {}
        self.unreadable = 0

    def need(self, numbers: Iterable[object]) -> None:
        """Fetch the texts of these numbers that are not here yet."""
        known = self._texts  # asked one by one: a set less the keys of a dict goes through all keys
        missing = sorted({n for n in numbers if type(n) is int and n not in known})
        if not missing:
            return
        if len(self._texts) > _KEPT:
            self._texts.clear()
            self._values.clear()
        if missing[-1] - missing[0] < 4 * len(missing):
            self._fetch("SELECT id, value FROM text WHERE id BETWEEN ? AND ?", (missing[0], missing[-1]))
            return
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            self._fetch(f"SELECT id, value FROM text WHERE id IN ({','.join('?' * len(batch))})", tuple(batch))

    def _fetch(self, query: str, arguments: tuple[object, ...]) -> None:
        for number, value in self._rows(query, arguments):
            if isinstance(number, int) and isinstance(value, str):
                self._texts[number] = value

    def text(self, number: object) -> str:
        """The text of a number; empty, and counted, when the stream does not hold it."""
        if type(number) is int:
            found = self._texts.get(number)
            if found is None:
                self.need((number,))
                found = self._texts.get(number)
            if found is not None:
                return found
        self.unreadable += 1
        return ""

    def column(self, storage: str, stored: Sequence[object]) -> list[Any]:
        """The values of a column stored as "text", "json", "bool", "int" or "real", many at a time."""
        if storage == "bool":
            return [bool(v) for v in stored]
        if storage not in {"text", "json"}:
            return list(stored)
        self.need(stored)
        read = self.text if storage == "text" else self.value
        values = {number: read(number) for number in set(stored)}
        return [values[number] for number in stored]

    def value(self, number: object) -> object:
        """The value of a JSON text, arrays as tuples; an empty tuple, and counted, when it cannot be read."""
        if type(number) is int and number in self._values:
            return self._values[number]
        text = self.text(number)
        try:
            found = _frozen(json.loads(text)) if text else ()
        except (ValueError, RecursionError):
            self.unreadable += 1
            found = ()
        if type(number) is int:
            self._values[number] = found
        return found


def _frozen(value: object) -> object:
    if isinstance(value, list):
        return tuple(_frozen(v) for v in value)
    return value
