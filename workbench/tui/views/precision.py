"""Is it right: compares two sessions; one alone can only say what it would need."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from rich.text import Text

from workbench.tui.keymap import hint
from workbench.tui.paint import Lines, paint, said, wrapped
from workbench.tui.views.view import View, blank


class Precision(View):
    """Always empty with one session open, and says why."""

    hints = (hint("look.decisions"), hint("look.parameters"), hint("commands"), hint("help"))

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
        """What would be here, why it is not, and what answers part of it."""
        level = self.reading.snapshot.manifest.level
        why = "Precision compares two sessions, a reference and a candidate, value by value. This is one session alone"
        more = f", recorded at level {level}." if level else "."
        wrong = sum(one.is_contradiction for one in self.reading.snapshot.decisions)
        modules = len({one.module for one in self.reading.snapshot.decisions if one.is_contradiction})
        lines = [*wrapped(why + more, min(width, 66)), blank()]
        if wrong:
            says = f"{modules} modules were built in another precision than the checkpoint holds."
            lines += [*wrapped(says, min(width, 66)), paint("{k|d} {m|shows which, and why}")]
        else:
            says = "No module was built in another precision than the checkpoint holds, as far as the headers say."
            lines += [*wrapped(says, min(width, 66), "m"), paint("{k|d} {m|shows the decisions}")]
        return [said("is it right", "f"), blank(), *lines]
