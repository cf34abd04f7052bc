"""The names of a model's layers, noted as soon as anything tells them, for functions that are given only the layer."""

from __future__ import annotations

import contextlib
import weakref
from typing import Any


class LayerNames:
    """Dotted names by layer; keeps no layer alive."""

    def __init__(self) -> None:
        self._names: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()

    def note(self, layer: Any, name: str) -> None:
        """Remember what a layer is called; the latest name counts. What cannot be held weakly has none."""
        if layer is not None and name:
            with contextlib.suppress(TypeError):
                self._names[layer] = name

    def note_model(self, model: Any) -> dict[str, str]:
        """Remember every module of a built model by its full name; gives the names that layers had before, by these."""
        before: dict[str, str] = {}
        named = getattr(model, "named_modules", None)
        for name, layer in named() if named is not None else ():
            was = self.of(layer)
            if was and was != name:
                before[name] = was
            self.note(layer, name)
        return before

    def of(self, layer: Any) -> str:
        """What a layer is called, "" when nothing told."""
        try:
            return self._names.get(layer, "")
        except TypeError:
            return ""
