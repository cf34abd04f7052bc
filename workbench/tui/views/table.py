"""The eight questions by name, and the view of a question whose facts could not be had."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from rich.text import Text

from workbench.tui.keymap import KEYS
from workbench.tui.lens import Lens
from workbench.tui.paint import Lines, wrapped
from workbench.tui.snapshot import Fault
from workbench.tui.views.costs import Costs
from workbench.tui.views.decisions import Decisions
from workbench.tui.views.findings import Findings
from workbench.tui.views.kernels import Kernels
from workbench.tui.views.log import Log
from workbench.tui.views.parameters import Parameters
from workbench.tui.views.precision import Precision
from workbench.tui.views.timeline import Timeline
from workbench.tui.views.view import Reading, View

QUESTIONS = tuple((key.keys, key.word) for key in KEYS if key.group == "questions")
VIEWS: Mapping[str, type[View]] = {
    "timeline": Timeline,
    "parameters": Parameters,
    "decisions": Decisions,
    "Kernels": Kernels,
    "precision": Precision,
    "memory·time": Costs,
    "findings": Findings,
    "log": Log,
}
PARTS = {"timeline": "timeline", "parameters": "parameters", "decisions": "decisions", "Kernels": "kernels"} | {
    "precision": "comparison",
    "memory·time": "costs",
    "findings": "findings",
}
"""Which part of the snapshot a question cannot do without."""


class Broken(View):
    """Two lines in the pane concerned; the other questions go on."""

    def __init__(self, reading: Reading, lens: Lens, fault: Fault) -> None:
        super().__init__(reading, lens)
        self.fault = fault

    def cells(self, row: object, width: int) -> Sequence[Text]:
        """There are no rows."""
        return ()

    def detail(self, row: object, width: int) -> Lines:
        """There are no rows."""
        return []

    def identity(self, row: object) -> Hashable:
        """There are no rows."""
        return None

    def empty(self, width: int) -> Lines:
        """What happened and what to try."""
        return [*wrapped(f"✗ {self.fault.what}", width, "e"), *wrapped(self.fault.try_, width, "m")]


def view_of(look: str, reading: Reading, lens: Lens) -> View:
    """The view of a question, or the two lines of what went wrong with its facts."""
    fault = reading.snapshot.faults.get(PARTS.get(look, ""))
    return Broken(reading, lens, fault) if fault is not None else VIEWS[look](reading, lens)
