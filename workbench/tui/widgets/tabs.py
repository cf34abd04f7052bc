"""The eight questions in one line; the letter to press is underlined inside the word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from workbench.tui.marks import line
from workbench.tui.paint import Lines
from workbench.tui.widgets.canvas import Canvas

ROOMY = 100


class Tabs(Canvas):
    """Names with their letters; only findings carry a number."""

    def __init__(self, names: Sequence[tuple[str, str]], **options: Any) -> None:
        super().__init__(**options)
        self.names, self.chosen, self.findings, self.role = names, "", 0, "E"

    def put(self, chosen: str, findings: int, role: str) -> None:
        """The open question, and how many findings there are in which role."""
        self.chosen, self.findings, self.role = chosen, findings, role
        self.refresh()

    def paint_lines(self, width: int) -> Lines:
        """All names; without room each only up to its first dot."""
        is_roomy = self.app.size.width >= ROOMY
        text = line()
        for letter, name in self.names:
            self._label(text, letter, name if is_roomy else name.partition("·")[0], is_open=name == self.chosen)
            if name == "findings" and self.findings:
                text.append(f" {self.findings}", self.role)
            text.append("  " if is_roomy else " ")
        return [text]

    def _label(self, text: Text, letter: str, name: str, *, is_open: bool) -> None:
        text.append("▎" if is_open else " ", "a")
        at = name.find(letter)
        text.append(name[:at], "T" if is_open else "m")
        text.append(name[at], "u")
        text.append(name[at + 1 :], "T" if is_open else "m")
